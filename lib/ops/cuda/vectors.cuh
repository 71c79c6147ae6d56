// V neighbouring numbers of a row in registers, loaded and stored at once.
#pragma once

#include "lib/ops/cuda/convert.cuh"

namespace hax::ops::cuda {

template <class T, int V>
struct alignas(sizeof(T) * V) Packed {
  T at[V];
};

// `from` and `to` are multiples of V * sizeof(T).
template <int V, class T>
__device__ __forceinline__ void load_vector(float* to, const T* from) {
  const auto packed = *reinterpret_cast<const Packed<T, V>*>(from);
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = to_float(packed.at[i]);
}
template <int V, class T>
__device__ __forceinline__ void store_vector(T* to, const float* from) {
  Packed<T, V> packed;
#pragma unroll
  for (int i = 0; i < V; ++i) packed.at[i] = from_float<T>(from[i]);
  *reinterpret_cast<Packed<T, V>*>(to) = packed;
}

}  // namespace hax::ops::cuda
