// The score MLP of key selection: 128 rows a block, 16 a warp, both layers' weights in shared memory. All
// that a thread reads is on its way before it waits for anything.
#include "lib/ops/cuda/key_selection.h"
#include "lib/ops/cuda/tiles.cuh"
#include "lib/ops/cuda/vectors.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kScoreRows = 128, kScoreThreads = 256;

// h (16 x D, as A fragments) of ReLU(in W^T + b).
template <int D>
__device__ __forceinline__ void hidden(uint32_t (&in)[D / 16][4], const bf16* W, const float* b, int lane) {
  uint32_t out[D / 16][4];
#pragma unroll
  for (int n = 0; n < D / 16; ++n) {
    float low[4], high[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      low[e] = b[n * 16 + lane % 4 * 2 + e % 2];
      high[e] = b[n * 16 + 8 + lane % 4 * 2 + e % 2];
    }
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t w[4];
      load_b(w, W + n * 16 * (D + 8) + k * 16, D + 8, lane);
      mma(low, in[k], w[0], w[1]);
      mma(high, in[k], w[2], w[3]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      low[e] = fmaxf(low[e], 0.0f);
      high[e] = fmaxf(high[e], 0.0f);
    }
    out[n][0] = pack(low[0], low[1]);
    out[n][1] = pack(low[2], low[3]);
    out[n][2] = pack(high[0], high[1]);
    out[n][3] = pack(high[2], high[3]);
  }
#pragma unroll
  for (int n = 0; n < D / 16; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) in[n][e] = out[n][e];
  }
}

// Four neighbours of a matrix; `whole`: they lie at a multiple of their size.
template <class W>
__device__ __forceinline__ Packed<W, 4> load_four(const W* from, bool whole) {
  if (whole) return load_packed<4>(from);
  float each[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) each[i] = to_float(from[i]);
  Packed<W, 4> four;
  four.set(each);
  return four;
}

// A matrix (D, D) on its way to shared memory: all of a thread's loads together, then its stores.
template <int D, class W>
struct Matrix {
  static constexpr int kFours = D * D / 4, kEach = (kFours + kScoreThreads - 1) / kScoreThreads;
  Packed<W, 4> four[kEach];
  __device__ __forceinline__ void load(const W* from, bool whole) {
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int i = k * kScoreThreads + threadIdx.x;
      if (i < kFours) four[k] = load_four(from + 4 * i, whole);
    }
  }
  __device__ __forceinline__ void store(bf16* to) const {
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int i = k * kScoreThreads + threadIdx.x;
      float x[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) x[e] = four[k].get(e);
      if (i < kFours) store_vector<4>(to + 4 * i / D * (D + 8) + 4 * i % D, x);
    }
  }
};

// Two neighbours as a register of an operand; `whole` as above.
template <class S>
__device__ __forceinline__ uint32_t load_two(const S* from, bool whole) {
  if (whole) {
    const auto two = load_packed<2>(from);
    return pack(two.get(0), two.get(1));
  }
  return pack(to_float(from[0]), to_float(from[1]));
}

// How inputs may be loaded.
struct Whole {
  bool matrices, K, summary;
};

// D = 2 d; S, W: types of summaries, and of weights and scores.
template <int D, class S, class W>
__global__ void __launch_bounds__(kScoreThreads)
    scores_kernel(Layout layout, Rows<const bf16> K, Rows<const S> summary, ScoreWeights<W> weights,
                  Whole whole, W* __restrict__ scores) {
  extern __shared__ __align__(16) bf16 tiles[];
  bf16 *W1 = tiles, *W2 = W1 + D * (D + 8);  // (D, D + 8) each
  float* b1 = reinterpret_cast<float*>(W2 + D * (D + 8));
  float* b2 = b1 + D;
  float* w3 = b2 + D;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kScoreRows;
  const int64_t used = layout.cu_seqlens[layout.batch];
  if (first >= used) return;
  Matrix<D, W> m1, m2;
  m1.load(weights.w1, whole.matrices);
  m2.load(weights.w2, whole.matrices);
  uint32_t in[D / 16][4];
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = first + warp * 16 + lane / 4 + i % 2 * 8;
      const int column = 16 * k + i / 2 * 8;
      in[k][i] = 0;
      if (row >= used) continue;
      in[k][i] =
          column < D / 2
              ? load_two(K.data + row * K.stride + column + lane % 4 * 2, whole.K)
              : load_two(summary.data + row * summary.stride + column - D / 2 + lane % 4 * 2, whole.summary);
    }
  }
  for (int i = threadIdx.x; i < D; i += kScoreThreads) {
    b1[i] = to_float(weights.b1[i]);
    b2[i] = to_float(weights.b2[i]);
    w3[i] = to_float(weights.w3[i]);
  }
  m1.store(W1);
  m2.store(W2);
  __syncthreads();
  hidden<D>(in, W1, b1, lane);
  hidden<D>(in, W2, b2, lane);
  float sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int n = 0; n < D / 16; ++n) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const __nv_bfloat162 pair = *reinterpret_cast<const __nv_bfloat162*>(&in[n][r]);
      const float* w = w3 + n * 16 + r / 2 * 8 + lane % 4 * 2;
      sum[r % 2] += __low2float(pair) * w[0] + __high2float(pair) * w[1];
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
    sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
    const int64_t row = first + warp * 16 + lane / 4 + 8 * half;
    if (lane % 4 == 0 && row < used) scores[row] = from_float<W>(sum[half] + to_float(weights.b3[0]));
  }
}

template <class T>
bool at_multiple_of(int n, const T* data, int64_t stride) {
  return stride % n == 0 && reinterpret_cast<uintptr_t>(data) % (n * sizeof(T)) == 0;
}

template <int D, class S, class W>
void launch(const Layout& layout, Rows<const bf16> K, Rows<const S> summary, const ScoreWeights<W>& weights,
            W* scores, cudaStream_t stream) {
  constexpr int kBytes = 2 * D * (D + 8) * sizeof(bf16) + 3 * D * sizeof(float);
  if (kBytes > 48 * 1024)
    cudaFuncSetAttribute(scores_kernel<D, S, W>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  scores_kernel<D, S, W>
      <<<static_cast<unsigned>(ceil_div(layout.rows, kScoreRows)), kScoreThreads, kBytes, stream>>>(
          layout, K, summary, weights,
          {at_multiple_of(4, weights.w1, 4) && at_multiple_of(4, weights.w2, 4),
           at_multiple_of(2, K.data, K.stride), at_multiple_of(2, summary.data, summary.stride)},
          scores);
}

}  // namespace

bool has_key_scores(int64_t d) { return d == 8 || d == 16 || d == 32 || d == 64; }

template <class S, class W>
void key_scores(const Layout& layout, int64_t d, Rows<const bf16> K, Rows<const S> summary,
                const ScoreWeights<W>& weights, W* scores, cudaStream_t stream) {
  if (d == 8) launch<16>(layout, K, summary, weights, scores, stream);
  if (d == 16) launch<32>(layout, K, summary, weights, scores, stream);
  if (d == 32) launch<64>(layout, K, summary, weights, scores, stream);
  if (d == 64) launch<128>(layout, K, summary, weights, scores, stream);
  check_launch("key_scores", "rows " + std::to_string(layout.rows) + ", d " + std::to_string(d));
}

#define HAX_INSTANTIATE(S, W)                                                             \
  template void key_scores<S, W>(const Layout&, int64_t, Rows<const bf16>, Rows<const S>, \
                                 const ScoreWeights<W>&, W*, cudaStream_t);
HAX_INSTANTIATE(float, float)
HAX_INSTANTIATE(float, bf16)
HAX_INSTANTIATE(bf16, float)
HAX_INSTANTIATE(bf16, bf16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
