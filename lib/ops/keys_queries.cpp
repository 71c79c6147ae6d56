#include "lib/ops/keys_queries.h"

#include <stdexcept>
#include <string>

#include "lib/ops/cuda_paths.h"

namespace hax::ops {

KeysQueries keys_queries(const at::Tensor& rows, double scale) {
  if (rows.dim() != 2 || rows.size(1) % 2 != 0)
    throw std::invalid_argument("keys_queries: wanted (T, 2 d), not " + std::to_string(rows.size(-1)) +
                                " columns");
#ifdef HAX_CUDA
  if (has_keys_queries_cuda(rows)) return keys_queries_cuda(rows, scale);
#endif
  const auto halves = rows.chunk(2, 1);
  return {halves[0] * scale, halves[1]};
}

}  // namespace hax::ops
