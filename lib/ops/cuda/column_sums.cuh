// The second half of gradients that are sums over rows: blocks leave one partial sum each, and they are added
// in a fixed order.
#pragma once

#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/launch.h"
#include "lib/ops/cuda/warp.cuh"

namespace hax::ops::cuda {

// The first rows * columns sums are a matrix that comes out transposed.
struct Transposed {
  int64_t rows = 0, columns = 0;
};

// Thread (x, y) of a block adds rows y, y + 32, ... of column x; then the 32 sums are added as a tree.
template <class T>
__global__ void __launch_bounds__(1024)
    column_sums_kernel(const float* __restrict__ parts, int64_t rows, int64_t columns, Transposed transposed,
                       T* __restrict__ sums) {
  __shared__ float tile[32][33];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  float sum = 0.0f;
  if (column < columns) {
#pragma unroll 8
    for (int64_t row = threadIdx.y; row < rows; row += 32) sum += parts[row * columns + column];
  }
  tile[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = warp_sum(tile[threadIdx.x][threadIdx.y]);
  const int64_t own = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.y;
  if (threadIdx.x != 0 || own >= columns) return;
  const bool turned = own < transposed.rows * transposed.columns;
  sums[turned ? own % transposed.columns * transposed.rows + own / transposed.columns : own] =
      from_float<T>(sum);
}

// sums (columns) of parts (rows, columns). T: float or __nv_bfloat16.
template <class T>
void column_sums(const char* of, const float* parts, int64_t rows, int64_t columns, T* sums,
                 cudaStream_t stream, Transposed transposed = {}) {
  column_sums_kernel<T><<<static_cast<unsigned>(ceil_div(columns, 32)), dim3(32, 32), 0, stream>>>(
      parts, rows, columns, transposed, sums);
  check_launch(of, "parts " + std::to_string(rows) + ", columns " + std::to_string(columns));
}

}  // namespace hax::ops::cuda
