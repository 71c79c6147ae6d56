// The scores of all keys: 128 rows a block. All that a thread reads is on its way before it waits for
// anything.
#include "lib/ops/cuda/score_mlp.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kScoreRows = 128, kScoreThreads = 256;

// How inputs may be loaded.
struct Whole {
  bool matrices, K, summary;
};

// D = 2 d; S, W: types of summaries, and of weights and scores.
template <int D, class S, class W>
__global__ void __launch_bounds__(kScoreThreads)
    scores_kernel(Layout layout, Rows<const bf16> K, Rows<const S> summary, ScoreWeights<W> weights,
                  Whole whole, W* __restrict__ scores) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto& tiles = *reinterpret_cast<ScoreTiles<D>*>(shared_bytes);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kScoreRows;
  const int64_t used = layout.cu_seqlens[layout.batch];
  if (first >= used) return;
  ScoreLoads<D, kScoreThreads, W> loads;
  loads.start(weights, whole.matrices);
  const float b3 = to_float(weights.b3[0]);
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
  loads.finish(tiles, weights, whole.matrices);
  __syncthreads();
  float score[2];
  score_rows<D>(score, in, tiles, lane);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int64_t row = first + warp * 16 + lane / 4 + 8 * h;
    if (lane % 4 == 0 && row < used) scores[row] = from_float<W>(score[h] + b3);
  }
}

template <int D, class S, class W>
void launch(const Layout& layout, Rows<const bf16> K, Rows<const S> summary, const ScoreWeights<W>& weights,
            W* scores, cudaStream_t stream) {
  constexpr int kBytes = sizeof(ScoreTiles<D>);
  if (kBytes > 48 * 1024)
    cudaFuncSetAttribute(scores_kernel<D, S, W>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  scores_kernel<D, S, W>
      <<<static_cast<unsigned>(ceil_div(layout.rows, kScoreRows)), kScoreThreads, kBytes, stream>>>(
          layout, K, summary, weights,
          {has_whole_matrices(weights), at_multiple_of(2, K.data, K.stride),
           at_multiple_of(2, summary.data, summary.stride)},
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
