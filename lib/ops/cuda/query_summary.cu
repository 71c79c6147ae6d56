// Query summaries. `causal`: running sums by chunks, each in the registers of a team. `paper`: sums whose
// every partial sum is rounded have one order, so one block takes a sequence and a thread a feature adds it
// up in shared memory; what can be done for many rows at once all threads do.
#include "lib/ops/cuda/chunk_sums.cuh"
#include "lib/ops/cuda/key_selection.h"
#include "lib/ops/cuda/tiles.cuh"

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

constexpr int kPaperThreads = 512;  // at least kSummaryWidest
constexpr int kBatch = 8;           // rows that are read together
constexpr int64_t kPaperShared = 200 * 1024;

// Rows of a sequence that are in shared memory at once.
template <class T>
int paper_rows(const Layout& layout, int64_t d) {
  const int64_t most = kPaperShared / (d * static_cast<int64_t>(sizeof(T)));
  return static_cast<int>(layout.max_seqlen < most ? layout.max_seqlen : most);
}

__device__ __forceinline__ float add(float a, float b) { return a + b; }
__device__ __forceinline__ __nv_bfloat16 add(__nv_bfloat16 a, __nv_bfloat16 b) { return __hadd(a, b); }

// The thread's elements of a matrix (rows, d), kPaperThreads * V apart: f(row, column) of V neighbours.
template <int V, class F>
__device__ __forceinline__ void for_elements(int rows, int d, const F& f) {
  constexpr int kApart = kPaperThreads * V;
  const int row_step = kApart / d, column_step = kApart % d;
  int row = static_cast<int>(threadIdx.x) * V / d, column = static_cast<int>(threadIdx.x) * V % d;
  while (row < rows) {
    f(row, column);
    row += row_step;
    column += column_step;
    if (column >= d) {
      column -= d;
      ++row;
    }
  }
}

// Replaces the rows by their running sums, from `sum` on: one thread a feature, x its first place.
template <class T>
__device__ __forceinline__ void add_up(T* x, int rows, int d, T& sum) {
  T next[kBatch];
  const auto read = [&](int first) {
#pragma unroll
    for (int k = 0; k < kBatch; ++k) next[k] = x[min(first + k, rows - 1) * d];
  };
  read(0);
  for (int first = 0; first < rows; first += kBatch) {
    T values[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) values[k] = next[k];
    read(first + kBatch);
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      if (first + k < rows) x[(first + k) * d] = sum = add(sum, values[k]);
    }
  }
}

// V: elements that are copied together.
template <class T, int V>
__global__ void __launch_bounds__(kPaperThreads)
    paper_kernel(Layout layout, int d, int most_rows, Rows<const T> Q, float padded_length,
                 T* __restrict__ summary) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  T* rows = reinterpret_cast<T*>(shared_bytes);  // (most_rows, d)
  __shared__ float norms[kSummaryWidest], squares[kPaperThreads];
  const int64_t begin = layout.cu_seqlens[blockIdx.x];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.x + 1] - begin);
  const int groups = kPaperThreads / d, group = threadIdx.x / d, feature = threadIdx.x % d;
  T* out = summary + begin * d;
  T sum = from_float<T>(0.0f);
  float square = 0.0f;
  for (int first = 0; first < n; first += most_rows) {
    const int here = min(most_rows, n - first);
    for_elements<V>(here, d, [&](int row, int column) {
      const T* from = Q.data + (begin + first + row) * Q.stride + column;
      if constexpr (V > 1)
        copy_async(rows + row * d + column, from, true);
      else
        rows[row * d + column] = *from;
    });
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    if (threadIdx.x < d) add_up(rows + threadIdx.x, here, d, sum);
    __syncthreads();
    for (int row = group; row < here && group < groups; row += groups) {
      const float x = to_float(rows[row * d + feature]);
      square = fmaf(x, x, square);
    }
    if (n <= most_rows) break;
    for_elements<1>(here, d, [&](int row, int column) {
      out[static_cast<int64_t>(first + row) * d + column] = rows[row * d + column];
    });
    __syncthreads();
  }
  squares[threadIdx.x] = square;
  __syncthreads();
  if (threadIdx.x < d) {
    float total = 0.0f;
    for (int g = 0; g < groups; ++g) total += squares[g * d + threadIdx.x];
    total += to_float(sum) * to_float(sum) * (padded_length - static_cast<float>(n));  // PAD repeats the last
    norms[threadIdx.x] = fmaxf(rounded<T>(sqrtf(total)), 1e-12f);
  }
  __syncthreads();
  if (n > most_rows) {
    for_elements<1>(n, d, [&](int row, int column) {
      T& x = out[static_cast<int64_t>(row) * d + column];
      x = from_float<T>(to_float(x) / norms[column]);
    });
    return;
  }
  for_elements<V>(n, d, [&](int row, int column) {
    __align__(16) T values[V];
#pragma unroll
    for (int i = 0; i < V; ++i)
      values[i] = from_float<T>(to_float(rows[row * d + column + i]) / norms[column + i]);
    T* to = out + static_cast<int64_t>(row) * d + column;
    if constexpr (V > 1)
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(values);
    else
      *to = values[0];
  });
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
  constexpr int kVector = 16 / sizeof(T);
  const auto vectors = [](const void* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % kVector == 0;
  };
  const bool wide = d % kVector == 0 && vectors(Q.data, Q.stride) && vectors(summary, d);
  const int rows = paper_rows<T>(layout, d);
  const auto bytes = static_cast<int>(rows * d * static_cast<int64_t>(sizeof(T)));
  const auto kernel = wide ? paper_kernel<T, kVector> : paper_kernel<T, 1>;
  if (bytes > 40 * 1024) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kernel<<<static_cast<unsigned>(layout.batch), kPaperThreads, bytes, stream>>>(
      layout, static_cast<int>(d), rows, Q, static_cast<float>(padded_length), summary);
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
