// The rows of a layout behind its last sequence.
#pragma once

#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// Zeros in the rows that no sequence uses: a share for each block of the grid.
template <class T>
__device__ __forceinline__ void zero_unused_rows(const Layout& layout, T* out, int width) {
  const int64_t first = layout.cu_seqlens[layout.batch] * width, last = layout.rows * width;
  const int64_t block = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * gridDim.y * blockDim.x;
  for (int64_t i = first + block * blockDim.x + threadIdx.x; i < last; i += step)
    out[i] = from_float<T>(0.0f);
}

}  // namespace hax::ops::cuda
