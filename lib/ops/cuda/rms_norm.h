// Root-mean-square norms (lib/ops/rms_norm.h), forward and backward.
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

struct NormShape {
  int64_t rows;
  int64_t d;  // even, at most kNormWidest
  float eps;
};
constexpr int64_t kNormWidest = 2048;

// y = x / rms(x) * weight. X, Y: float or __nv_bfloat16; weight fp32. y contiguous.
template <class X, class Y>
void norm_forward(const NormShape& shape, Rows<const X> x, const float* weight, Y* y, cudaStream_t stream);

int64_t norm_scratch_bytes(const NormShape& shape);

// dx contiguous; dweight (d) fp32, summed in a fixed order.
template <class X, class Y>
void norm_backward(const NormShape& shape, Rows<const X> x, const float* weight, Rows<const Y> dy, X* dx,
                   float* dweight, void* scratch, cudaStream_t stream);

}  // namespace hax::ops::cuda
