// Rotary position embedding (Su et al. 2021) over whole heads, halves rotated (spec section 2.3).
#pragma once

#include "lib/ops/layout.h"

namespace hax::ops {

// x (T, H, P), P even; position (T) int64 -> (T, H, P): features p and p + P/2 of a token at position t, as a
// point of the plane, turn by the angle t * theta^(-2p / P). Angles are fp64; their sines and cosines are
// rounded to x's dtype, as in the official code, products are fp32 or wider. Differentiable in x. Throws
// std::invalid_argument for another shape or an odd P.
at::Tensor rope(const at::Tensor& x, const at::Tensor& position, double theta, Path path = Path::automatic);

}  // namespace hax::ops
