// A thread takes 16 bytes of a row; with sums a block a chunk of a sequence, a team the keys and a team the
// queries.
#include "lib/ops/cuda/keys_queries.h"

#include "lib/ops/cuda/chunk_sums.cuh"
#include "lib/ops/cuda/unused_rows.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 256;

// Columns [0, d) of `wide` against `first`, scaled, and [d, 2 d) against `second`.
template <class T, bool kSplit>
__global__ void __launch_bounds__(kThreads)
    keys_queries_kernel(int64_t rows, int d, float scale, Rows<const T> wide_in, Rows<const T> first_in,
                        Rows<const T> second_in, T* __restrict__ wide, T* __restrict__ first,
                        T* __restrict__ second) {
  constexpr int kVector = 16 / sizeof(T);
  const int vectors = 2 * d / kVector;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, row = i / vectors;
  if (row >= rows) return;
  const int column = static_cast<int>(i - row * vectors) * kVector;
  const bool key = column < d;
  const int inside = key ? column : column - d;
  const Rows<const T>& narrow = key ? first_in : second_in;
  const T* from =
      kSplit ? wide_in.data + row * wide_in.stride + column : narrow.data + row * narrow.stride + inside;
  T* to = kSplit ? (key ? first : second) + row * d + inside : wide + row * 2 * d + column;
  float values[kVector];
  load_vector<kVector>(values, from);
#pragma unroll
  for (int k = 0; k < kVector; ++k) values[k] *= key ? scale : 1.0f;
  store_vector<kVector>(to, values);
}

template <class T, class Team>
__global__ void __launch_bounds__(2 * Team::kThreads)
    split_and_sum_kernel(Layout layout, float scale, Features<T> keys, Features<T> queries, T* __restrict__ K,
                         T* __restrict__ Q, float* __restrict__ sums) {
  __shared__ float partial[2][Team::kShared];
  const int d = keys.d;
  zero_unused_rows(layout, K, d);
  zero_unused_rows(layout, Q, d);
  const Chunk chunk = chunk_of_block(layout);
  if (chunk.n <= 0) return;
  const int side = static_cast<int>(threadIdx.x) / Team::kThreads;
  const Team team(static_cast<int>(threadIdx.x) % Team::kThreads);
  const float by = side == 0 ? scale : 1.0f;
  T* to = side == 0 ? K : Q;
  float x[Team::kRows][Team::F], sum[Team::F] = {};
  team.load(x, side_of(side, keys, queries), chunk);
#pragma unroll
  for (int r = 0; r < Team::kRows; ++r) {
#pragma unroll
    for (int i = 0; i < Team::F; ++i) {
      x[r][i] = rounded<T>(__fmul_rn(x[r][i], by));  // no part of the sum below
      sum[i] += x[r][i];
    }
    if (team.row(r) < chunk.n) team.store(to + (chunk.first + team.row(r)) * d, x[r], d, true);
  }
  team.sum(sum, partial[side]);
  if (team.group != 0) return;
  team.store(sums + ((static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * 2 + side) * d, sum, d,
             true);
}

template <class T>
unsigned blocks(int64_t rows, int64_t d) {
  return static_cast<unsigned>(ceil_div(rows * (2 * d * static_cast<int64_t>(sizeof(T)) / 16), kThreads));
}

std::string text(int64_t rows, int64_t d) {
  return "rows " + std::to_string(rows) + ", d " + std::to_string(d);
}

}  // namespace

template <class T>
void split_keys_queries(int64_t rows, int64_t d, float scale, Rows<const T> from, T* K, T* Q,
                        cudaStream_t stream) {
  if (rows == 0) return;
  keys_queries_kernel<T, true><<<blocks<T>(rows, d), kThreads, 0, stream>>>(rows, static_cast<int>(d), scale,
                                                                            from, {}, {}, nullptr, K, Q);
  check_launch("split_keys_queries", text(rows, d));
}

int64_t keys_queries_sums(const Layout& layout, int64_t d) {
  return layout.batch * chunks_of(layout) * 2 * d;
}

template <class T>
void split_keys_queries(const Layout& layout, int64_t d, float scale, Rows<const T> from, T* K, T* Q,
                        float* sums, cudaStream_t stream) {
  const Features<T> keys = features_of(from, d), queries = features_of<T>({from.data + d, from.stride}, d);
  with_chunk_team<kSummedWidest>(d, [&](auto tag) {
    using Team = typename decltype(tag)::Type;
    split_and_sum_kernel<T, Team>
        <<<chunk_grid(layout), 2 * Team::kThreads, 0, stream>>>(layout, scale, keys, queries, K, Q, sums);
  });
  check_launch("split_keys_queries with sums", text(layout.rows, d));
}

template <class T>
void join_keys_queries(int64_t rows, int64_t d, float scale, Rows<const T> dK, Rows<const T> dQ, T* to,
                       cudaStream_t stream) {
  if (rows == 0) return;
  keys_queries_kernel<T, false><<<blocks<T>(rows, d), kThreads, 0, stream>>>(
      rows, static_cast<int>(d), scale, {}, dK, dQ, to, nullptr, nullptr);
  check_launch("join_keys_queries", text(rows, d));
}

#define HAX_INSTANTIATE(T)                                                                           \
  template void split_keys_queries<T>(const Layout&, int64_t, float, Rows<const T>, T*, T*, float*,  \
                                      cudaStream_t);                                                 \
  template void split_keys_queries<T>(int64_t, int64_t, float, Rows<const T>, T*, T*, cudaStream_t); \
  template void join_keys_queries<T>(int64_t, int64_t, float, Rows<const T>, Rows<const T>, T*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
