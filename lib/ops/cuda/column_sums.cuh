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

constexpr int kSummedColumns = 32;  // of a block of (32, 32) threads
constexpr int kRowsAhead = 16;      // rows of a thread on their way at once

// Thread (x, y) adds rows y, y + 32, ... of the x-th of the columns from `first` on; then the 32 sums are
// added as a tree.
template <class T>
__device__ __forceinline__ void sum_columns(int64_t first, const float* __restrict__ parts, int64_t rows,
                                            int64_t columns, Transposed transposed, T* __restrict__ sums) {
  __shared__ float tile[32][33];
  const int64_t column = first + threadIdx.x;
  float sum = 0.0f;
  if (column < columns) {
    const float* at = parts + threadIdx.y * columns + column;
    for (int64_t row = threadIdx.y; row < rows; row += 32 * kRowsAhead) {
      float ahead[kRowsAhead];
#pragma unroll
      for (int i = 0; i < kRowsAhead; ++i) {
        ahead[i] = row + 32 * i < rows ? *at : 0.0f;
        at += 32 * columns;
      }
#pragma unroll
      for (int i = 0; i < kRowsAhead; ++i) sum += ahead[i];
    }
  }
  tile[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = warp_sum(tile[threadIdx.x][threadIdx.y]);
  const int64_t own = first + threadIdx.y;
  if (threadIdx.x != 0 || own >= columns) return;
  int64_t place = own;
  if (own < transposed.rows * transposed.columns) {
    const auto from = static_cast<unsigned>(own), width = static_cast<unsigned>(transposed.columns);
    place = from % width * transposed.rows + from / width;
  }
  sums[place] = from_float<T>(sum);
}

template <class T>
__global__ void __launch_bounds__(1024)
    column_sums_kernel(const float* __restrict__ parts, int64_t rows, int64_t columns, Transposed transposed,
                       T* __restrict__ sums) {
  sum_columns(static_cast<int64_t>(blockIdx.x) * kSummedColumns, parts, rows, columns, transposed, sums);
}

// sums (columns) of parts (rows, columns). T: float or __nv_bfloat16.
template <class T>
void column_sums(const char* of, const float* parts, int64_t rows, int64_t columns, T* sums,
                 cudaStream_t stream, Transposed transposed = {}) {
  column_sums_kernel<T>
      <<<static_cast<unsigned>(ceil_div(columns, kSummedColumns)), dim3(32, 32), 0, stream>>>(
          parts, rows, columns, transposed, sums);
  check_launch(of, "parts " + std::to_string(rows) + ", columns " + std::to_string(columns));
}

}  // namespace hax::ops::cuda
