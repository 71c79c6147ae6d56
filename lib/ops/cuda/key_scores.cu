// The score MLP of key selection: 128 rows a block, 16 a warp, both layers' weights in shared memory.
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/key_selection.h"
#include "lib/ops/cuda/tiles.cuh"

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

// store(i, load(i)) for i in [0, N), a batch of a thread's loads on their way together.
template <int N, class Load, class Store>
__device__ __forceinline__ void load_elements(const Load& load, const Store& store) {
  constexpr int kBatch = 8;
  static_assert(N % kScoreThreads == 0);
  for (int i0 = threadIdx.x; i0 < N; i0 += kBatch * kScoreThreads) {
    bf16 values[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      if (i0 + k * kScoreThreads < N) values[k] = load(i0 + k * kScoreThreads);
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      if (i0 + k * kScoreThreads < N) store(i0 + k * kScoreThreads, values[k]);
    }
  }
}
template <int D, class W>
__device__ __forceinline__ void load_matrix(bf16* to, const W* from) {
  load_elements<D * D>([&](int i) { return from_float<bf16>(to_float(from[i])); },
                       [&](int i, bf16 value) { to[i / D * (D + 8) + i % D] = value; });
}

// D = 2 d; S, W: types of summaries, and of weights and scores.
template <int D, class S, class W>
__global__ void __launch_bounds__(kScoreThreads)
    scores_kernel(Layout layout, Rows<const bf16> K, Rows<const S> summary, ScoreWeights<W> weights,
                  W* __restrict__ scores) {
  extern __shared__ __align__(16) bf16 tiles[];
  bf16* x = tiles;                      // (kScoreRows, D + 8)
  bf16* W1 = x + kScoreRows * (D + 8);  // (D, D + 8)
  bf16* W2 = W1 + D * (D + 8);
  float* b1 = reinterpret_cast<float*>(W2 + D * (D + 8));
  float* b2 = b1 + D;
  float* w3 = b2 + D;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kScoreRows;
  const int64_t used = layout.cu_seqlens[layout.batch];
  if (first >= used) return;
  load_matrix<D>(W1, weights.w1);
  load_matrix<D>(W2, weights.w2);
  for (int i = threadIdx.x; i < D; i += kScoreThreads) {
    b1[i] = to_float(weights.b1[i]);
    b2[i] = to_float(weights.b2[i]);
    w3[i] = to_float(weights.w3[i]);
  }
  const auto element = [&](int i) {
    const int64_t row = first + i / D;
    const int c = i % D;
    if (row >= used) return from_float<bf16>(0.0f);
    return c < D / 2 ? K.data[row * K.stride + c]
                     : from_float<bf16>(to_float(summary.data[row * summary.stride + c - D / 2]));
  };
  load_elements<kScoreRows * D>(element, [&](int i, bf16 value) { x[i / D * (D + 8) + i % D] = value; });
  __syncthreads();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t in[D / 16][4];
#pragma unroll
  for (int k = 0; k < D / 16; ++k) load_a(in[k], x + warp * 16 * (D + 8) + k * 16, D + 8, lane);
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

template <int D, class S, class W>
void launch(const Layout& layout, Rows<const bf16> K, Rows<const S> summary, const ScoreWeights<W>& weights,
            W* scores, cudaStream_t stream) {
  constexpr int kBytes = (kScoreRows + 2 * D) * (D + 8) * sizeof(bf16) + 3 * D * sizeof(float);
  if (kBytes > 48 * 1024)
    cudaFuncSetAttribute(scores_kernel<D, S, W>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  scores_kernel<D, S, W>
      <<<static_cast<unsigned>(ceil_div(layout.rows, kScoreRows)), kScoreThreads, kBytes, stream>>>(
          layout, K, summary, weights, scores);
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
