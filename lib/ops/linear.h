// y = x W^T, without a bias.
#pragma once

#include "lib/ops/torch.h"

namespace hax::ops {

// x (T, in), weight (out, in) of the same dtype -> (T, out). The gradient of a leaf weight may be made apart
// (lib/ops/leaf_gradients.h).
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace hax::ops
