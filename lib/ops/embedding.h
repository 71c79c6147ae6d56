// Rows of the embedding matrix.
#pragma once

#include "lib/ops/layout.h"

namespace hax::ops {

// weight (V, d), tokens (T) int64 -> (T, d) in weight's dtype. Differentiable in weight; a token's gradient
// is summed in the order of rows.
at::Tensor embedding(const at::Tensor& weight, const at::Tensor& tokens, const PackedLayout& layout,
                     Path path = Path::automatic);

}  // namespace hax::ops
