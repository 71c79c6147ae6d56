#include "lib/model/key_cache.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace hax {

KeyCache::KeyCache(int64_t d_key, int64_t d_value, const at::TensorOptions& options)
    : keys_(at::empty({0, d_key}, options)), values_(at::empty({0, d_value}, options)) {}

void KeyCache::insert(int64_t position, const at::Tensor& key, const at::Tensor& value, int64_t holders) {
  if (holders < 1) return;
  const int64_t row = size();
  if (!entries_.emplace(position, Entry{row, holders}).second) {
    throw std::invalid_argument("KeyCache: position " + std::to_string(position) + " is held already");
  }
  if (row == keys_.size(0)) grow();
  keys_.narrow(0, row, 1).copy_(key);
  values_.narrow(0, row, 1).copy_(value);
  position_of_.push_back(position);
}

void KeyCache::release(int64_t position) {
  const Entry found = entry(position);
  if (found.holders > 1) {
    --entries_.at(position).holders;
    return;
  }
  const int64_t last = size() - 1;
  if (found.row != last) {
    keys_.narrow(0, found.row, 1).copy_(keys_.narrow(0, last, 1));
    values_.narrow(0, found.row, 1).copy_(values_.narrow(0, last, 1));
    position_of_[found.row] = position_of_[last];
    entries_.at(position_of_[last]).row = found.row;
  }
  position_of_.pop_back();
  entries_.erase(position);
}

KeyCache::Rows KeyCache::select(const std::vector<int64_t>& positions) const {
  std::vector<int64_t> rows;
  rows.reserve(positions.size());
  for (int64_t position : positions) rows.push_back(entry(position).row);
  const at::Tensor index = at::tensor(rows, at::kLong).to(keys_.device());
  return {keys_.index_select(0, index), values_.index_select(0, index)};
}

int64_t KeyCache::bytes() const {
  return static_cast<int64_t>(keys_.narrow(0, 0, size()).nbytes() + values_.narrow(0, 0, size()).nbytes() +
                              position_of_.size() * sizeof(int64_t));
}

const KeyCache::Entry& KeyCache::entry(int64_t position) const {
  const auto found = entries_.find(position);
  if (found == entries_.end()) {
    throw std::invalid_argument("KeyCache: position " + std::to_string(position) + " is not held");
  }
  return found->second;
}

void KeyCache::grow() {
  const int64_t used = keys_.size(0), capacity = std::max<int64_t>(16, 2 * used);
  const auto larger = [&](const at::Tensor& rows) {
    at::Tensor grown = at::empty({capacity, rows.size(1)}, rows.options());
    grown.narrow(0, 0, used).copy_(rows);
    return grown;
  };
  keys_ = larger(keys_);
  values_ = larger(values_);
}

}  // namespace hax
