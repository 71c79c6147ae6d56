// The overwrite recurrence: the state-space model of the constructive solution (spec section 5), whose decay
// depends on the input and is 0 or 1, by feature:
//   h_t = x_t where x_t != 0, else h_{t-1};   h before a sequence's first token is 0
#pragma once

#include "lib/ops/layout.h"

namespace hax::ops {

// x (T, F) -> h (T, F) of x's dtype, exact: every output is a copy of an input, or 0. Differentiable in x.
at::Tensor overwrite(const at::Tensor& x, const PackedLayout& layout, Path path = Path::automatic);

}  // namespace hax::ops
