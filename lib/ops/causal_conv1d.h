// Causal depthwise convolution with SiLU, inside each packed sequence (spec section 2.1).
#pragma once

#include "lib/ops/layout.h"

namespace hax::ops {

// x (T, channels); weight (channels, width), the last tap is the current token; bias (channels).
// Returns SiLU(conv(x) + bias), (T, channels), in x's dtype. Differentiable in all three.
at::Tensor causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const PackedLayout& layout, Path path = Path::automatic);

// One token, x (1, channels): window (width - 1, channels) holds the inputs before it, zeros before the
// first, and moves on by one. Not differentiable.
at::Tensor causal_conv1d_step(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                              at::Tensor& window);

}  // namespace hax::ops
