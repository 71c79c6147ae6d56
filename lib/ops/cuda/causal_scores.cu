// Causal query summaries and the scores that follow from them: a block takes two chunks of a sequence, a team
// each, whose summaries go from registers into the MLP.
#include "lib/ops/cuda/query_summary.cuh"
#include "lib/ops/cuda/score_mlp.cuh"
#include "lib/ops/cuda/unused_rows.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kTeams = 2, kThreads = 256;

// D = 2 d; W: type of weights and scores. chunks: of the longest sequence.
template <int D, class W>
__global__ void __launch_bounds__(kThreads, D <= 64 ? 3 : 2)
    causal_scores_kernel(Layout layout, int chunks, Features<bf16> Q, Rows<const bf16> K, bool whole_keys,
                         const float* __restrict__ sums, int pitch, ScoreWeights<W> weights,
                         bool whole_matrices, float* __restrict__ summary, W* __restrict__ scores) {
  constexpr int d = D / 2, kPitch = d + 8;
  using Team = ChunkTeam<(d <= 16 ? 4 : d / 4), 1>;
  static_assert(kTeams * Team::kThreads == kThreads && Team::kThreads / 32 * 16 == kChunk);
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto& tiles = *reinterpret_cast<ScoreTiles<D>*>(shared_bytes);
  __shared__ float partial[kTeams][2 * Team::kShared];
  __shared__ __align__(16) bf16 rows[kTeams][kChunk * kPitch];  // summaries
  zero_unused_rows(layout, summary, d);
  const int side = static_cast<int>(threadIdx.x) / Team::kThreads, lane = threadIdx.x % 32;
  const int first = static_cast<int>(blockIdx.x) * kTeams, index = first + side;
  const Chunk chunk = chunk_at(layout, blockIdx.y, index);
  if (first * kChunk >= chunk.length) return;
  const Team team(static_cast<int>(threadIdx.x) % Team::kThreads);
  ScoreLoads<D, kThreads, W> loads;
  loads.start(weights, whole_matrices);
  const float b3 = to_float(weights.b3[0]);
  // The row of a fragment's register i, and where its two columns begin in 16 columns.
  const auto row_of = [&](int i) { return team.warp * 16 + lane / 4 + i % 2 * 8; };
  const auto column_of = [&](int i) { return i / 2 * 8 + lane % 4 * 2; };
  uint32_t in[D / 16][4];
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      in[k][i] = 0;
      if (16 * k + i / 2 * 8 < d && row_of(i) < chunk.n)
        in[k][i] =
            load_two(K.data + (chunk.first + row_of(i)) * K.stride + 16 * k + column_of(i), whole_keys);
    }
  }
  float x[Team::kRows][Team::F];
  summarise(x, team, Q, chunk, sums_of_block(sums, chunks, pitch), pitch, /*fours=*/true, index,
            partial[side]);
#pragma unroll
  for (int r = 0; r < Team::kRows; ++r) {
    if (team.row(r) < chunk.n) team.store(summary + (chunk.first + team.row(r)) * d, x[r], d, true);
    team.store(rows[side] + team.row(r) * kPitch, x[r], d, true);
  }
  loads.finish(tiles, weights, whole_matrices);
  __syncthreads();
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (16 * k + i / 2 * 8 >= d)
        in[k][i] =
            *reinterpret_cast<const uint32_t*>(rows[side] + row_of(i) * kPitch + 16 * k - d + column_of(i));
    }
  }
  float score[2];
  score_rows<D>(score, in, tiles, lane);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (lane % 4 == 0 && row_of(h) < chunk.n) scores[chunk.first + row_of(h)] = from_float<W>(score[h] + b3);
  }
}

template <int D, class W>
void launch(const Layout& layout, Rows<const bf16> Q, Rows<const bf16> K, const ScoreWeights<W>& weights,
            const float* sums, float* summary, W* scores, float* scratch, cudaStream_t stream) {
  const Features<bf16> queries = features_of(Q, D / 2);
  const int pitch = sums ? D : D / 2;
  sums = sums ? sums + D / 2 : nullptr;  // those of K come first
  if (!sums) {
    with_chunk_team<kSummaryWidest>(D / 2, [&](auto team) {
      using Team = typename decltype(team)::Type;
      chunk_sums_kernel<bf16, Team>
          <<<chunk_grid(layout), Team::kThreads, 0, stream>>>(layout, queries, queries, scratch);
    });
  }
  constexpr int kBytes = sizeof(ScoreTiles<D>);
  const auto kernel = causal_scores_kernel<D, W>;
  if (kBytes > 24 * 1024)  // with what is static
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  const auto chunks = static_cast<int>(chunks_of(layout));
  const dim3 grid(static_cast<unsigned>(ceil_div(chunks, kTeams)), static_cast<unsigned>(layout.batch));
  kernel<<<grid, kThreads, kBytes, stream>>>(layout, chunks, queries, K, at_multiple_of(2, K.data, K.stride),
                                             sums ? sums : scratch, pitch, weights,
                                             has_whole_matrices(weights), summary, scores);
}

}  // namespace

template <class W>
void causal_scores(const Layout& layout, int64_t d, Rows<const bf16> Q, Rows<const bf16> K,
                   const ScoreWeights<W>& weights, const float* sums, float* summary, W* scores,
                   float* scratch, cudaStream_t stream) {
  if (d == 8) launch<16>(layout, Q, K, weights, sums, summary, scores, scratch, stream);
  if (d == 16) launch<32>(layout, Q, K, weights, sums, summary, scores, scratch, stream);
  if (d == 32) launch<64>(layout, Q, K, weights, sums, summary, scores, scratch, stream);
  if (d == 64) launch<128>(layout, Q, K, weights, sums, summary, scores, scratch, stream);
  check_launch("causal_scores", "sequences " + std::to_string(layout.batch) + ", d " + std::to_string(d));
}

#define HAX_INSTANTIATE(W)                                                                   \
  template void causal_scores<W>(const Layout&, int64_t, Rows<const bf16>, Rows<const bf16>, \
                                 const ScoreWeights<W>&, const float*, float*, W*, float*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(bf16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
