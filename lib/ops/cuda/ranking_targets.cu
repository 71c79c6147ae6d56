// The targets of the ranking loss: of bf16 keys on tensor cores where their width allows, else a warp a
// sampled key with its lanes over the queries.
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/key_selection.h"
#include "lib/ops/cuda/tiles.cuh"
#include "lib/ops/cuda/warp.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kTargetWarps = 8;

// What the padded queries behind this block's sequence of n give to position j: sigmoid(0) each.
__device__ __forceinline__ float of_padded(int64_t n, int64_t j, const int64_t* __restrict__ pad_queries) {
  const int64_t padded = pad_queries ? n + pad_queries[blockIdx.y] - max(n, j) : 0;
  return 0.5f * static_cast<float>(max(padded, int64_t{0}));
}

// Y: what products, sigmoids and targets are rounded to.
template <class T, class Y>
__global__ void __launch_bounds__(kTargetWarps * 32)
    targets_kernel(Layout layout, int d, int k, Rows<const T> Q, Rows<const T> K,
                   const int64_t* __restrict__ sampled, const int64_t* __restrict__ pad_queries,
                   Y* __restrict__ targets) {
  extern __shared__ float keys[];  // (kTargetWarps, d)
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, s = blockIdx.x * kTargetWarps + warp;
  if (s >= k) return;
  const int64_t begin = layout.cu_seqlens[blockIdx.y], n = layout.cu_seqlens[blockIdx.y + 1] - begin;
  const int64_t place = static_cast<int64_t>(blockIdx.y) * k + s, j = sampled[place];
  float sum = 0.0f;
  if (j >= 0) {
    float* key = keys + warp * d;
    if (j < n) {
      for (int c = lane; c < d; c += 32) key[c] = to_float(K.data[(begin + j) * K.stride + c]);
      __syncwarp();
      for (int64_t i = j + lane; i < n; i += 32) {
        const T* q = Q.data + (begin + i) * Q.stride;
        float dot = 0.0f;
        for (int c = 0; c < d; ++c) dot = fmaf(to_float(q[c]), key[c], dot);
        sum += rounded<Y>(sigmoid(rounded<Y>(dot)));
      }
    }
    sum = warp_sum(sum);
    sum += of_padded(n, j, pad_queries);
  }
  if (lane == 0) targets[place] = from_float<Y>(sum);
}

// The same for bf16 on tensor cores: a block takes 32 keys of a sequence, each of its warps 16 queries in
// turn; keys are the rows of the product, so that a key's sum stays in its lanes.
constexpr int kTargetKeys = 32, kTargetQueries = 16, kTileWarps = 16;

__device__ __forceinline__ uint32_t load_word(const bf16* p) { return *reinterpret_cast<const uint32_t*>(p); }

template <int D, class Y>
__global__ void __launch_bounds__(kTileWarps * 32)
    targets_by_tiles_kernel(Layout layout, int k, Rows<const bf16> Q, Rows<const bf16> K,
                            const int64_t* __restrict__ sampled, const int64_t* __restrict__ pad_queries,
                            Y* __restrict__ targets) {
  __shared__ float sums[kTileWarps][kTargetKeys];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4 * 2;
  const int64_t begin = layout.cu_seqlens[blockIdx.y], n = layout.cu_seqlens[blockIdx.y + 1] - begin;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * k + blockIdx.x * kTargetKeys;
  const int here = min(kTargetKeys, k - static_cast<int>(blockIdx.x) * kTargetKeys);
  int64_t place[4];  // of keys g, g + 8, g + 16, g + 24; n: none, or padded
  uint32_t a[2][D / 16][4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int key = g + 8 * r;
    const int64_t j = key < here ? sampled[first + key] : -1;
    place[r] = j >= 0 && j < n ? j : n;
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      const bf16* row = K.data + (begin + j) * K.stride + d * 16 + c;
      a[r / 2][d][r % 2] = place[r] < n ? load_word(row) : 0;
      a[r / 2][d][r % 2 + 2] = place[r] < n ? load_word(row + 8) : 0;
    }
  }
  float sum[4] = {};
  const auto load = [&](uint32_t(&b)[2][D / 16][2], int64_t i0) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t query = i0 + 8 * half + g;
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        const bf16* row = Q.data + (begin + query) * Q.stride + d * 16 + c;
        b[half][d][0] = query < n ? load_word(row) : 0;
        b[half][d][1] = query < n ? load_word(row + 8) : 0;
      }
    }
  };
  uint32_t now[2][D / 16][2], next[2][D / 16][2];
  load(now, warp * kTargetQueries);
  for (int64_t i0 = warp * kTargetQueries; i0 < n; i0 += kTileWarps * kTargetQueries) {
    load(next, i0 + kTileWarps * kTargetQueries);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t q0 = i0 + 8 * half;
      float dots[2][4] = {};
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        mma(dots[0], a[0][d], now[half][d][0], now[half][d][1]);
        mma(dots[1], a[1][d], now[half][d][0], now[half][d][1]);
      }
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int64_t i = q0 + c + e;
          if (i < n && i >= place[r]) sum[r] += rounded<Y>(sigmoid(rounded<Y>(dots[r / 2][r % 2 * 2 + e])));
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        now[half][d][0] = next[half][d][0];
        now[half][d][1] = next[half][d][1];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
    sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
    if (lane % 4 == 0) sums[warp][g + 8 * r] = sum[r];
  }
  __syncthreads();
  if (threadIdx.x >= here) return;
  const int64_t j = sampled[first + threadIdx.x];
  float total = 0.0f;
  if (j >= 0) {
    for (int w = 0; w < kTileWarps; ++w) total += sums[w][threadIdx.x];
    total += of_padded(n, j, pad_queries);
  }
  targets[first + threadIdx.x] = from_float<Y>(total);
}

std::string sequences_text(const Layout& layout, int64_t k) {
  return "sequences " + std::to_string(layout.batch) + ", k " + std::to_string(k);
}

}  // namespace

template <class T, class Y>
void ranking_targets(const Layout& layout, int64_t d, int64_t k, Rows<const T> Q, Rows<const T> K,
                     const int64_t* sampled, const int64_t* pad_queries, Y* targets, cudaStream_t stream) {
  if constexpr (std::is_same_v<T, bf16>) {
    // Words of two features must be aligned.
    const bool words = Q.stride % 2 == 0 && K.stride % 2 == 0 &&
                       reinterpret_cast<uintptr_t>(Q.data) % 4 == 0 &&
                       reinterpret_cast<uintptr_t>(K.data) % 4 == 0;
    if (words && (d == 16 || d == 32 || d == 64)) {
      const dim3 tiles(static_cast<unsigned>(ceil_div(k, kTargetKeys)), static_cast<unsigned>(layout.batch));
      const auto kernel = d == 16   ? targets_by_tiles_kernel<16, Y>
                          : d == 32 ? targets_by_tiles_kernel<32, Y>
                                    : targets_by_tiles_kernel<64, Y>;
      kernel<<<tiles, kTileWarps * 32, 0, stream>>>(layout, static_cast<int>(k), Q, K, sampled, pad_queries,
                                                    targets);
      check_launch("ranking_targets", sequences_text(layout, k));
      return;
    }
  }
  const dim3 grid(static_cast<unsigned>(ceil_div(k, kTargetWarps)), static_cast<unsigned>(layout.batch));
  targets_kernel<T, Y><<<grid, kTargetWarps * 32, kTargetWarps * d * sizeof(float), stream>>>(
      layout, static_cast<int>(d), static_cast<int>(k), Q, K, sampled, pad_queries, targets);
  check_launch("ranking_targets", sequences_text(layout, k));
}

#define HAX_INSTANTIATE(T, Y)                                                                        \
  template void ranking_targets<T, Y>(const Layout&, int64_t, int64_t, Rows<const T>, Rows<const T>, \
                                      const int64_t*, const int64_t*, Y*, cudaStream_t);
HAX_INSTANTIATE(float, float)
HAX_INSTANTIATE(bf16, float)
HAX_INSTANTIATE(bf16, bf16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
