// Query summaries. `causal`: running sums by chunks, each in the registers of a team. `paper`: sums whose
// every partial sum is rounded have one order, so one block takes a sequence: a thread a feature adds up a
// tile of positions while the others bring the next; when the norms are known, all divide.
#include "lib/ops/cuda/chunk_sums.cuh"
#include "lib/ops/cuda/key_selection.h"

namespace hax::ops::cuda {
namespace {

template <class T, class Team>
__global__ void __launch_bounds__(Team::kThreads)
    summary_kernel(Layout layout, Features<T> Q, const float* __restrict__ sums, bool fours,
                   float* __restrict__ summary) {
  __shared__ float shared[2 * Team::kShared];
  const Chunk chunk = chunk_of_block(layout);
  if (chunk.n <= 0) return;
  const Team team(threadIdx.x);
  float x[Team::kRows][Team::F], entering[Team::F] = {};
  team.load(x, Q, chunk);
  team.add_chunks(entering, sums, Q.d, Q.d, fours, static_cast<int>(blockIdx.x));
  team.running(x, entering, shared);
#pragma unroll
  for (int r = 0; r < Team::kRows; ++r) {
    float square = 0.0f;
#pragma unroll
    for (int i = 0; i < Team::F; ++i) square = fmaf(x[r][i], x[r][i], square);
    square = team.over_row(square);
    const float inverse = 1.0f / fmaxf(sqrtf(square), 1e-12f);
#pragma unroll
    for (int i = 0; i < Team::F; ++i) x[r][i] *= inverse;
    if (team.row(r) < chunk.n) team.store(summary + (chunk.first + team.row(r)) * Q.d, x[r], Q.d, fours);
  }
}

constexpr int kBatch = 8;           // loads that a thread has on their way together
constexpr int kPaperThreads = 512;  // at most half of them add up

// Positions of a tile.
__host__ __device__ constexpr int paper_rows(int d) { return d <= 64 ? 128 : d <= 128 ? 64 : 32; }

__device__ __forceinline__ float add(float a, float b) { return a + b; }
__device__ __forceinline__ __nv_bfloat16 add(__nv_bfloat16 a, __nv_bfloat16 b) { return __hadd(a, b); }

template <class T>
__global__ void __launch_bounds__(kPaperThreads)
    paper_kernel(Layout layout, int d, Rows<const T> Q, float padded_length, T* __restrict__ summary) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  T* tiles = reinterpret_cast<T*>(shared_bytes);  // (2, paper_rows(d), d)
  __shared__ float norms[kSummaryWidest];
  const int64_t begin = layout.cu_seqlens[blockIdx.x];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.x + 1] - begin), rows = paper_rows(d);
  const int adders = (d + 31) / 32 * 32, helpers = kPaperThreads - adders;
  const bool helps = threadIdx.x >= adders, adds = threadIdx.x < d;
  T* out = summary + begin * d;
  const auto bring = [&](int tile) {
    T* to = tiles + tile % 2 * rows * d;
    for (int i0 = static_cast<int>(threadIdx.x) - adders; i0 < rows * d; i0 += kBatch * helpers) {
      T values[kBatch];
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        const int i = i0 + k * helpers, p = tile * rows + i / d;
        values[k] = from_float<T>(0.0f);
        if (i < rows * d && p < n) values[k] = Q.data[(begin + p) * Q.stride + i % d];
      }
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        if (i0 + k * helpers < rows * d) to[i0 + k * helpers] = values[k];
      }
    }
  };
  if (helps) bring(0);
  __syncthreads();
  T sum = from_float<T>(0.0f);
  float square = 0.0f;
  for (int tile = 0; tile * rows < n; ++tile) {
    if (helps) bring(tile + 1);
    if (adds) {
      const T* x = tiles + tile % 2 * rows * d + threadIdx.x;
      T* to = out + static_cast<int64_t>(tile) * rows * d + threadIdx.x;
      const int here = min(rows, n - tile * rows);
      for (int p0 = 0; p0 < here; p0 += kBatch) {
        T values[kBatch];
#pragma unroll
        for (int k = 0; k < kBatch; ++k) values[k] = x[(p0 + k) * d];  // zeros behind the end
#pragma unroll
        for (int k = 0; k < kBatch; ++k) values[k] = sum = add(sum, values[k]);
#pragma unroll
        for (int k = 0; k < kBatch; ++k) {
          if (p0 + k >= here) continue;
          square = fmaf(to_float(values[k]), to_float(values[k]), square);
          to[(p0 + k) * d] = values[k];
        }
      }
    }
    __syncthreads();
  }
  if (adds) {
    square +=
        to_float(sum) * to_float(sum) * (padded_length - static_cast<float>(n));  // PAD repeats the last
    norms[threadIdx.x] = fmaxf(rounded<T>(sqrtf(square)), 1e-12f);
  }
  __syncthreads();
  const int64_t all = static_cast<int64_t>(n) * d;
  for (int64_t i0 = threadIdx.x; i0 < all; i0 += kBatch * kPaperThreads) {
    float values[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int64_t i = i0 + k * kPaperThreads;
      values[k] = i < all ? to_float(out[i]) / norms[i % d] : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      if (i0 + k * kPaperThreads < all) out[i0 + k * kPaperThreads] = from_float<T>(values[k]);
    }
  }
}

}  // namespace

int64_t summary_scratch_floats(const Layout& layout, int64_t d) {
  return layout.batch * chunks_of(layout) * d;
}

template <class T>
void query_summary_causal(const Layout& layout, int64_t d, Rows<const T> Q, float* summary, float* scratch,
                          cudaStream_t stream) {
  const Features<T> queries = features_of(Q, d);
  const bool fours = features_of(Rows<const float>{scratch, d}, d).fours &&
                     features_of(Rows<const float>{summary, d}, d).fours;
  with_chunk_team<kSummaryWidest>(d, [&](auto team) {
    using Team = typename decltype(team)::Type;
    chunk_sums_kernel<T, Team>
        <<<chunk_grid(layout), Team::kThreads, 0, stream>>>(layout, queries, queries, scratch);
    summary_kernel<T, Team>
        <<<chunk_grid(layout), Team::kThreads, 0, stream>>>(layout, queries, scratch, fours, summary);
  });
  check_launch("query_summary_causal",
               "sequences " + std::to_string(layout.batch) + ", d " + std::to_string(d));
}

template <class T>
void query_summary_paper(const Layout& layout, int64_t d, int64_t padded_length, Rows<const T> Q, T* summary,
                         cudaStream_t stream) {
  const size_t bytes = 2 * paper_rows(static_cast<int>(d)) * d * sizeof(T);
  if (bytes > 40 * 1024)
    cudaFuncSetAttribute(paper_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(bytes));
  paper_kernel<T><<<static_cast<unsigned>(layout.batch), kPaperThreads, bytes, stream>>>(
      layout, static_cast<int>(d), Q, static_cast<float>(padded_length), summary);
  check_launch("query_summary_paper",
               "sequences " + std::to_string(layout.batch) + ", d " + std::to_string(d));
}

#define HAX_INSTANTIATE(T)                                                                     \
  template void query_summary_causal<T>(const Layout&, int64_t, Rows<const T>, float*, float*, \
                                        cudaStream_t);                                         \
  template void query_summary_paper<T>(const Layout&, int64_t, int64_t, Rows<const T>, T*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
