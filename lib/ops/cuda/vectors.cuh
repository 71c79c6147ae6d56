// V neighbouring numbers of a row in registers, loaded and stored at once.
#pragma once

#include <cstdint>
#include <type_traits>

#include "lib/ops/cuda/convert.cuh"

namespace hax::ops::cuda {

// As they lie in memory; in whole registers where they fill them, which are never taken apart.
template <class T, int V>
struct alignas(sizeof(T) * V) Packed {
  static constexpr bool kWords = sizeof(T) * V % sizeof(uint32_t) == 0;
  using Unit = std::conditional_t<kWords, uint32_t, T>;
  Unit unit[sizeof(T) * V / sizeof(Unit)];

  __device__ __forceinline__ float get(int v) const {
    if constexpr (!kWords)
      return to_float(unit[v]);
    else if constexpr (std::is_same_v<T, float>)
      return __uint_as_float(unit[v]);
    else
      return __uint_as_float(v % 2 ? unit[v / 2] & 0xffff0000u : unit[v / 2] << 16);
  }
  __device__ __forceinline__ void set(const float* from) {
    if constexpr (!kWords) {
#pragma unroll
      for (int v = 0; v < V; ++v) unit[v] = from_float<T>(from[v]);
    } else if constexpr (std::is_same_v<T, float>) {
#pragma unroll
      for (int v = 0; v < V; ++v) unit[v] = __float_as_uint(from[v]);
    } else {
#pragma unroll
      for (int v = 0; v < V; v += 2) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(from[v], from[v + 1]);
        unit[v / 2] = *reinterpret_cast<const uint32_t*>(&pair);
      }
    }
  }
};

// `from` and `to` are multiples of V * sizeof(T).
template <int V, class T>
__device__ __forceinline__ Packed<T, V> load_packed(const T* from) {
  return *reinterpret_cast<const Packed<T, V>*>(from);
}
template <int V, class T>
__device__ __forceinline__ void load_vector(float* to, const T* from) {
  const auto packed = load_packed<V>(from);
#pragma unroll
  for (int v = 0; v < V; ++v) to[v] = packed.get(v);
}
template <int V, class T>
__device__ __forceinline__ void store_vector(T* to, const float* from) {
  Packed<T, V> packed;
  packed.set(from);
  *reinterpret_cast<Packed<T, V>*>(to) = packed;
}

}  // namespace hax::ops::cuda
