// Backward, small vocabularies: a block adds kTableRows rows into a table of the whole matrix in shared
// memory; the tables are added up in order. Large ones: a block a token id. It looks through all tokens
// kThreads at a time, lists the rows that hold its id in shared memory, and adds them up: thread (g, f) takes
// feature f of every kGroups-th row of the list, and the groups are added in order at the end.
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

constexpr int kTableRows = 128, kTableGroups = 8;
constexpr int64_t kTableBytes = 40 * 1024, kTableThreads = 512;

// parts (blocks, vocab, d). Group g of d threads takes the ids with id % groups = g, so that all share a
// table.
template <class T>
__global__ void __launch_bounds__(kTableThreads)
    table_kernel(Layout layout, int d, int vocab, int groups, const int64_t* __restrict__ tokens,
                 const T* __restrict__ dout, float* __restrict__ parts) {
  extern __shared__ float table[];
  __shared__ int ids[kTableRows];
  __shared__ uint8_t rows[kTableGroups][kTableRows];
  __shared__ int counts[kTableGroups];
  const int n = vocab * d, g = threadIdx.x / d, column = threadIdx.x % d;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTableRows, used = layout.cu_seqlens[layout.batch];
  for (int i = threadIdx.x; i < kTableRows; i += blockDim.x)
    ids[i] = first + i < used ? static_cast<int>(tokens[first + i]) : -1;
  for (int i = threadIdx.x; i < n; i += blockDim.x) table[i] = 0.0f;
  __syncthreads();
  if (g < groups && column == 0) {
    int count = 0;
    for (int i = 0; i < kTableRows; ++i) {
      if (ids[i] >= 0 && ids[i] % groups == g) rows[g][count++] = static_cast<uint8_t>(i);
    }
    counts[g] = count;
  }
  __syncthreads();
  if (g < groups) {
    constexpr int kAhead = 8;  // rows read before the first is added
    const int count = counts[g];
    for (int i = 0; i < count; i += kAhead) {
      float value[kAhead];
#pragma unroll
      for (int k = 0; k < kAhead; ++k)
        value[k] = i + k < count ? to_float(dout[(first + rows[g][i + k]) * d + column]) : 0.0f;
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (i + k < count) table[ids[rows[g][i + k]] * d + column] += value[k];
      }
    }
  }
  __syncthreads();
  float* part = parts + static_cast<int64_t>(blockIdx.x) * n;
  for (int i = threadIdx.x; i < n; i += blockDim.x) part[i] = table[i];
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
    const int64_t groups = std::clamp<int64_t>(kTableThreads / d, 1, kTableGroups);
    auto* parts = static_cast<float*>(scratch);
    table_kernel<<<blocks, static_cast<unsigned>(ceil_div(groups * d, 32) * 32), vocab * d * sizeof(float),
                   stream>>>(layout, static_cast<int>(d), static_cast<int>(vocab), static_cast<int>(groups),
                             tokens, dout, parts);
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
