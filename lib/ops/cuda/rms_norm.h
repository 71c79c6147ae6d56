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

// sum = x + h, rounded to X; y = sum / rms(sum) * weight. h.data may be null: then the sum is x, and written
// only with `index`. index (rows) may be null; else row i is of x's and h's row index[i], and where that is
// below 0 sum and y are zero. X, Y: float or __nv_bfloat16; weight fp32. sum and y (rows, d) contiguous.
template <class X, class Y>
void norm_forward(const NormShape& shape, const int64_t* index, Rows<const X> x, Rows<const Y> h,
                  const float* weight, X* sum, Y* y, cudaStream_t stream);

int64_t norm_parts_floats(const NormShape& shape);

// x: the sum. dsum.data may be null; dh may be null. dx and dh contiguous, the same gradient in two types;
// parts: norm_parts_floats partial sums of the weight's. With `index` row i's gradients go to row index[i] of
// dx and dh, if that is not below 0; no two rows have the same, and other rows of dx and dh are left alone.
template <class X, class Y>
void norm_backward(const NormShape& shape, const int64_t* index, Rows<const X> x, const float* weight,
                   Rows<const Y> dy, Rows<const X> dsum, X* dx, Y* dh, float* parts, cudaStream_t stream);
void norm_sums(const NormShape& shape, const float* parts, float* dweight, cudaStream_t stream);

}  // namespace hax::ops::cuda
