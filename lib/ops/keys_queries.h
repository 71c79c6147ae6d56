// Keys and queries from one projection.
#pragma once

#include "lib/ops/layout.h"

namespace hax::ops {

struct KeysQueries {
  at::Tensor K, Q;  // (T, d)
  at::Tensor sums;  // what a GPU's lsh and causal_scores begin with; undefined: they make it themselves
};
// rows (T, 2 d): K = scale times the first d columns, Q = the others. Differentiable, but for sums. layout:
// that of the rows, without which there are no sums.
KeysQueries keys_queries(const at::Tensor& rows, double scale, const PackedLayout* layout = nullptr);

}  // namespace hax::ops
