// Causal depthwise convolution with SiLU on packed sequences (lib/ops/causal_conv1d.h), forward and backward.
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

constexpr int64_t kConvWidest = 8;

struct ConvShape {
  int64_t channels;
  int64_t width;  // 1 .. kConvWidest
};

// T: float or __nv_bfloat16; weight (channels, width) and bias (channels) fp32; y contiguous.
template <class T>
void conv_forward(const Layout& layout, const ConvShape& shape, Rows<const T> x, const float* weight,
                  const float* bias, T* y, cudaStream_t stream);

// Bytes of scratch that conv_backward needs.
int64_t conv_scratch_bytes(const Layout& layout, const ConvShape& shape);

// dx contiguous; dweight (channels, width), dbias (channels) fp32, summed in a fixed order.
template <class T>
void conv_backward(const Layout& layout, const ConvShape& shape, Rows<const T> x, const float* weight,
                   const float* bias, Rows<const T> dy, T* dx, float* dweight, float* dbias, void* scratch,
                   cudaStream_t stream);

}  // namespace hax::ops::cuda
