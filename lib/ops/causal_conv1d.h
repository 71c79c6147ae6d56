// Causal depthwise convolution with SiLU, inside each packed sequence (spec section 2.1).
#pragma once

#include <vector>

#include "lib/ops/columns.h"
#include "lib/ops/layout.h"

namespace hax::ops {

// x (T, channels); weight (channels, width), or as checkpoints have it (channels, 1, width), the last tap is
// the current token; bias (channels).
// Returns SiLU(conv(x) + bias), (T, channels), in x's dtype. Differentiable in all three.
at::Tensor causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const PackedLayout& layout, Path path = Path::automatic);

// rows (T, n): columns [first, first + channels) go through causal_conv1d, the others stay as they are; cut
// into `pieces`, none of them over the edge of the convolved columns. Pieces of those may overlap: autograd
// brings each one's gradient apart, and the convolution adds them up as it reads them; there are at most
// kMostConvolvedPieces. Other pieces do not overlap.
constexpr int64_t kMostConvolvedPieces = 6;
std::vector<at::Tensor> causal_conv1d_pieces(const at::Tensor& rows, int64_t first, const at::Tensor& weight,
                                             const at::Tensor& bias, const PackedLayout& layout,
                                             const std::vector<Columns>& pieces, Path path = Path::automatic);

// One token, x (1, channels): window (width - 1, channels) holds the inputs before it, zeros before the
// first, and moves on by one. Not differentiable.
at::Tensor causal_conv1d_step(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                              at::Tensor& window);

}  // namespace hax::ops
