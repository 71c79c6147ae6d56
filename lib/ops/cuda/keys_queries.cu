// A thread takes 16 bytes of a row.
#include "lib/ops/cuda/keys_queries.h"

#include "lib/ops/cuda/vectors.cuh"

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

template <class T>
void join_keys_queries(int64_t rows, int64_t d, float scale, Rows<const T> dK, Rows<const T> dQ, T* to,
                       cudaStream_t stream) {
  if (rows == 0) return;
  keys_queries_kernel<T, false><<<blocks<T>(rows, d), kThreads, 0, stream>>>(
      rows, static_cast<int>(d), scale, {}, dK, dQ, to, nullptr, nullptr);
  check_launch("join_keys_queries", text(rows, d));
}

#define HAX_INSTANTIATE(T)                                                                           \
  template void split_keys_queries<T>(int64_t, int64_t, float, Rows<const T>, T*, T*, cudaStream_t); \
  template void join_keys_queries<T>(int64_t, int64_t, float, Rows<const T>, Rows<const T>, T*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
