// Causal depthwise convolution with SiLU on packed sequences (lib/ops/causal_conv1d.h), forward and backward.
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

constexpr int64_t kConvWidest = 4;

struct ConvShape {
  int64_t channels;
  int64_t width;  // 1 .. kConvWidest
};

// T: float or __nv_bfloat16; weight (channels, width) and bias (channels) fp32; y contiguous.
template <class T>
void conv_forward(const Layout& layout, const ConvShape& shape, Rows<const T> x, const float* weight,
                  const float* bias, T* y, cudaStream_t stream);

// The gradient of y is the sum of up to kConvSources matrices, each of columns [begin, end) of y.
constexpr int kConvSources = 6;
template <class T>
struct ConvSource {
  Rows<const T> rows;
  int begin, end;
};
template <class T>
struct ConvUpstream {
  ConvSource<T> source[kConvSources];
  int count;
};

int64_t conv_parts_floats(const Layout& layout, const ConvShape& shape);

// parts: conv_parts_floats partial sums of the gradients of taps and bias.
template <class T>
void conv_backward(const Layout& layout, const ConvShape& shape, Rows<const T> x, const float* weight,
                   const float* bias, const ConvUpstream<T>& upstream, Rows<T> dx, float* parts,
                   cudaStream_t stream);
// sums: the gradient of the taps (channels, width) and, behind it, of the bias (channels).
void conv_sums(const Layout& layout, const ConvShape& shape, const float* parts, float* sums,
               cudaStream_t stream);

}  // namespace hax::ops::cuda
