#include "lib/model/branch_state.h"

#include <algorithm>

namespace hax {

at::Tensor BranchState::attend(const at::Tensor& K, const at::Tensor& Q, const at::Tensor& V) {
  cache.insert(position, K, V, static_cast<int64_t>(memories.size()));
  std::vector<int64_t> attended, dropped;
  for (const auto& memory : memories) {
    const Reach reach = memory->arrive(position, K, Q);
    attended.insert(attended.end(), reach.attended.begin(), reach.attended.end());
    dropped.insert(dropped.end(), reach.dropped.begin(), reach.dropped.end());
  }
  std::sort(attended.begin(), attended.end());
  attended.erase(std::unique(attended.begin(), attended.end()), attended.end());
  ++position;

  at::Tensor out = at::zeros_like(V);
  if (!attended.empty()) {
    const KeyCache::Rows rows = cache.select(attended);
    const auto type = V.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor weights = Q.to(type).mm(rows.keys.to(type).t()).softmax(1);  // (1, n)
    out = weights.mm(rows.values.to(type)).to(V.scalar_type());
  }
  // After the query has read: a window's last key leaves with it.
  for (int64_t key : dropped) cache.release(key);
  return out;
}

StateBytes BranchState::bytes() const {
  StateBytes bytes{0, cache.bytes()};
  for (const auto& memory : memories) bytes += memory->bytes();
  return bytes;
}

}  // namespace hax
