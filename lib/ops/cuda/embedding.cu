// Backward, small vocabularies: a block adds kTableRows rows into tables of the whole matrix in shared
// memory, one thread a feature and every groups-th row; all tables are added up in order. Large ones: a block
// a token id. It looks through all tokens kThreads at a time, lists the rows that hold its id in shared
// memory, and adds them up: thread (g, f) takes feature f of every kGroups-th row of the list, and the groups
// are added in order at the end.
#include "lib/ops/cuda/embedding.h"

#include <algorithm>

#include "lib/ops/cuda/convert.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void forward_kernel(Layout layout, int d, const T* __restrict__ weight,
                               const int64_t* __restrict__ tokens, T* __restrict__ out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t row = i / d;
  if (row >= layout.rows) return;
  out[i] = row < layout.cu_seqlens[layout.batch] ? weight[tokens[row] * d + i % d] : from_float<T>(0.0f);
}

// Features [blockIdx.y * width, ...) of id blockIdx.x; width * groups <= kThreads.
template <class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Layout layout, int d, int width, int groups, const int64_t* __restrict__ tokens,
                    const T* __restrict__ dout, T* __restrict__ dweight) {
  __shared__ int64_t list[kThreads];
  __shared__ int before[kThreads / 32 + 1];
  __shared__ float sums[kThreads];
  const int64_t used = layout.cu_seqlens[layout.batch];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int f = threadIdx.x % width, g = threadIdx.x / width, column = blockIdx.y * width + f;
  const bool adds = g < groups && column < d;
  float sum = 0.0f;
  for (int64_t first = 0; first < used; first += kThreads) {
    const int64_t row = first + threadIdx.x;
    const bool mine = row < used && tokens[row] == blockIdx.x;
    const uint32_t found = __ballot_sync(0xffffffffu, mine);
    if (!__syncthreads_or(found != 0)) continue;
    if (lane == 0) before[warp + 1] = __popc(found);
    if (threadIdx.x == 0) before[0] = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int w = 0; w < kThreads / 32; ++w) before[w + 1] += before[w];
    }
    __syncthreads();
    if (mine) list[before[warp] + __popc(found & ((1u << lane) - 1))] = row;
    const int n = before[kThreads / 32];
    __syncthreads();
    if (adds) {
      for (int i = g; i < n; i += groups) sum += to_float(dout[list[i] * d + column]);
    }
    __syncthreads();
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (g != 0 || column >= d) return;
  float total = 0.0f;
  for (int k = 0; k < groups; ++k) total += sums[k * width + f];
  dweight[static_cast<int64_t>(blockIdx.x) * d + column] = from_float<T>(total);
}

constexpr int kTableRows = 128;
constexpr int64_t kTableBytes = 40 * 1024, kTableThreads = 512;

// parts (blocks, vocab, d)
template <class T>
__global__ void table_kernel(Layout layout, int d, int vocab, int groups, const int64_t* __restrict__ tokens,
                             const T* __restrict__ dout, float* __restrict__ parts) {
  extern __shared__ float tables[];  // (groups, vocab, d)
  const int n = vocab * d, g = threadIdx.x / d, column = threadIdx.x % d;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTableRows;
  const int64_t last = min(first + kTableRows, layout.cu_seqlens[layout.batch]);
  for (int i = threadIdx.x; i < groups * n; i += blockDim.x) tables[i] = 0.0f;
  __syncthreads();
  if (g < groups) {
    float* table = tables + g * n + column;
    constexpr int kAhead = 8;  // rows read before the first is added
    for (int64_t row = first + g; row < last; row += kAhead * groups) {
      int64_t id[kAhead];
      float value[kAhead];
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        const int64_t at = row + k * groups;
        id[k] = at < last ? tokens[at] : 0;
        value[k] = at < last ? to_float(dout[at * d + column]) : 0.0f;
      }
#pragma unroll
      for (int k = 0; k < kAhead; ++k) table[id[k] * d] += value[k];
    }
  }
  __syncthreads();
  float* part = parts + static_cast<int64_t>(blockIdx.x) * n;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    float sum = 0.0f;
    for (int k = 0; k < groups; ++k) sum += tables[k * n + i];
    part[i] = sum;
  }
}

template <class T>
__global__ void tables_sum_kernel(int64_t n, int blocks, const float* __restrict__ parts,
                                  T* __restrict__ out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float sum = 0.0f;
#pragma unroll 8
  for (int b = 0; b < blocks; ++b) sum += parts[b * n + i];
  out[i] = from_float<T>(sum);
}

bool fits_table(int64_t vocab, int64_t d) {
  return vocab * d * static_cast<int64_t>(sizeof(float)) <= kTableBytes && d <= 512;
}

}  // namespace

int64_t embedding_scratch_bytes(const Layout& layout, int64_t vocab, int64_t d) {
  return fits_table(vocab, d)
             ? ceil_div(layout.rows, kTableRows) * vocab * d * static_cast<int64_t>(sizeof(float))
             : 0;
}

template <class T>
void embedding_forward(const Layout& layout, int64_t d, const T* weight, const int64_t* tokens, T* out,
                       cudaStream_t stream) {
  forward_kernel<<<static_cast<unsigned>(ceil_div(layout.rows * d, kThreads)), kThreads, 0, stream>>>(
      layout, static_cast<int>(d), weight, tokens, out);
  check_launch("embedding_forward", "rows " + std::to_string(layout.rows) + ", d " + std::to_string(d));
}

template <class T>
void embedding_backward(const Layout& layout, int64_t vocab, int64_t d, const int64_t* tokens, const T* dout,
                        T* dweight, void* scratch, cudaStream_t stream) {
  if (fits_table(vocab, d)) {
    const auto blocks = static_cast<unsigned>(ceil_div(layout.rows, kTableRows));
    const int64_t table = vocab * d * static_cast<int64_t>(sizeof(float));
    const int64_t groups = std::max<int64_t>(1, std::min(kTableBytes / table, kTableThreads / d));
    auto* parts = static_cast<float*>(scratch);
    table_kernel<<<blocks, static_cast<unsigned>(ceil_div(groups * d, 32) * 32), groups * table, stream>>>(
        layout, static_cast<int>(d), static_cast<int>(vocab), static_cast<int>(groups), tokens, dout, parts);
    check_launch("embedding_backward", "vocabulary " + std::to_string(vocab) + ", d " + std::to_string(d));
    tables_sum_kernel<<<static_cast<unsigned>(ceil_div(vocab * d, 64)), 64, 0, stream>>>(
        vocab * d, static_cast<int>(blocks), parts, dweight);
    check_launch("embedding_backward's sums",
                 "vocabulary " + std::to_string(vocab) + ", d " + std::to_string(d));
    return;
  }
  const int width = static_cast<int>(d < kThreads ? d : kThreads), groups = kThreads / width;
  const dim3 grid(static_cast<unsigned>(vocab), static_cast<unsigned>(ceil_div(d, width)));
  backward_kernel<<<grid, kThreads, 0, stream>>>(layout, static_cast<int>(d), width, groups, tokens, dout,
                                                 dweight);
  check_launch("embedding_backward", "vocabulary " + std::to_string(vocab) + ", d " + std::to_string(d));
}

#define HAX_INSTANTIATE(T)                                                                                  \
  template void embedding_forward<T>(const Layout&, int64_t, const T*, const int64_t*, T*, cudaStream_t);   \
  template void embedding_backward<T>(const Layout&, int64_t, int64_t, const int64_t*, const T*, T*, void*, \
                                      cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
