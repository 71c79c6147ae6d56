// Element types of kernels: storage in fp32 or bf16, arithmetic in fp32.
#pragma once

#include <cuda_bf16.h>

namespace hax::ops::cuda {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// x as a T holds it.
template <class T>
__device__ __forceinline__ float rounded(float x) {
  return to_float(from_float<T>(x));
}

// Two neighbours, the first at an even place.
__device__ __forceinline__ float2 load_pair(const float* from) {
  return *reinterpret_cast<const float2*>(from);
}
__device__ __forceinline__ float2 load_pair(const __nv_bfloat16* from) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from));
}

// to[p] and to[p + 1], as far as they are below `columns`; to[p] may be stored as one pair if columns is
// even.
__device__ __forceinline__ void store_pair(float* to, int p, int columns, float x, float y) {
  if (p + 1 < columns && columns % 2 == 0) {
    *reinterpret_cast<float2*>(to + p) = make_float2(x, y);
  } else {
    if (p < columns) to[p] = x;
    if (p + 1 < columns) to[p + 1] = y;
  }
}
__device__ __forceinline__ void store_pair(__nv_bfloat16* to, int p, int columns, float x, float y) {
  if (p + 1 < columns && columns % 2 == 0) {
    *reinterpret_cast<__nv_bfloat162*>(to + p) = __floats2bfloat162_rn(x, y);
  } else {
    if (p < columns) to[p] = from_float<__nv_bfloat16>(x);
    if (p + 1 < columns) to[p + 1] = from_float<__nv_bfloat16>(y);
  }
}

// Of about 22 bits.
__device__ __forceinline__ float sigmoid(float x) {
  float e, s;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x * -1.44269504f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(s) : "f"(1.0f + e));
  return s;
}

}  // namespace hax::ops::cuda
