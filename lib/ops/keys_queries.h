// Keys and queries from one projection.
#pragma once

#include "lib/ops/torch.h"

namespace hax::ops {

struct KeysQueries {
  at::Tensor K, Q;  // (T, d)
};
// rows (T, 2 d): K = scale times the first d columns, Q = the others. Differentiable.
KeysQueries keys_queries(const at::Tensor& rows, double scale);

}  // namespace hax::ops
