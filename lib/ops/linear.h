// y = x W^T, without a bias.
#pragma once

#include "lib/ops/torch.h"

namespace hax::ops {

// x (T, in), weight (out, in) of the same dtype -> (T, out). Within a LaneScope the gradient of a leaf weight
// is made on kPatientLane, since nothing waits for it, and put into weight.grad() there: to be read after
// LaneScope::join_all.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace hax::ops
