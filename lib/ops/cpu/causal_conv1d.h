// Causal depthwise convolution with bias and SiLU on fp32 (lib/ops/causal_conv1d.h).
//
// Tokens are cut into blocks of a fixed size, so that sums over tokens do not depend on threads: a block's
// part of the weights' gradient is written apart, and the parts are summed in order.
#pragma once

#include <cstdint>

#include "lib/ops/cpu/rows.h"

namespace hax::cpu {

constexpr int64_t kConvBlock = 128;  // tokens
constexpr int64_t kConvWidest = 4;

struct ConvInput {
  ConstRows x;              // (T, channels)
  const float* taps;        // (width, channels), the last row is the current token
  const float* bias;        // (channels)
  const int64_t* position;  // (T), inside the sequence
  const int64_t* seq_id;    // (T)
  int64_t tokens;
  int64_t channels;
  int64_t width;  // 1 .. kConvWidest

  int64_t blocks() const { return (tokens + kConvBlock - 1) / kConvBlock; }
};

// y (T, channels), of blocks [begin, end).
void conv_forward(const ConvInput& in, float* y, int64_t begin, int64_t end);

// dx (T, channels), and parts (blocks, width + 1, channels) of the gradient of the taps, then of the bias.
void conv_backward(const ConvInput& in, ConstRows dy, float* dx, float* parts, int64_t begin, int64_t end);

}  // namespace hax::cpu
