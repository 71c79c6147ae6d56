// Products of small tiles on tensor cores, D (16 x 8) += A (16 x 16) B (16 x 8), accumulated in fp32. T is
// the operands' type: bf16 is one instruction; fp32 is split into two TF32 numbers and multiplied three
// times, which keeps about 21 bits.
//
// With g = lane / 4 and t = lane % 4 a thread holds pairs of neighbours along k:
//   A: pair 0 (g, 2t..), pair 1 (g + 8, 2t..), pair 2 (g, 2t + 8..), pair 3 (g + 8, 2t + 8..)
//   B: pair 0 (2t.., g), pair 1 (2t + 8.., g)
//   D: d[0..1] (g, 2t..), d[2..3] (g + 8, 2t..)
// so two accumulators side by side are an A operand. (TF32 instructions number k otherwise; A and B are
// permuted alike.)
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "lib/ops/cuda/tiles.cuh"

namespace hax::ops::cuda {

template <class T>
struct OperandA;
template <class T>
struct OperandB;

__device__ __forceinline__ uint32_t bf16_pair(float x, float y) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

template <>
struct OperandA<__nv_bfloat16> {
  uint32_t pair[4];
  __device__ __forceinline__ void set(int i, float x, float y) { pair[i] = bf16_pair(x, y); }
};
template <>
struct OperandB<__nv_bfloat16> {
  uint32_t pair[2];
};

// An A of computed numbers, which rounding to bf16 would spoil: two operands, A = big + small.
template <class T>
struct WideA {
  OperandA<T> big, small;
  __device__ __forceinline__ void set(int i, float x, float y) {
    big.set(i, x, y);
    small.set(i, x - __uint_as_float(big.pair[i] << 16), y - __uint_as_float(big.pair[i] & 0xffff0000u));
  }
};

// Numbers x = big + small of TF32.
struct Tf32Parts {
  uint32_t big, small;
  __device__ __forceinline__ void set(float x) {
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(big) : "f"(x));
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(small) : "f"(x - __uint_as_float(big)));
  }
};
template <>
struct OperandA<float> {
  Tf32Parts at[8];
  __device__ __forceinline__ void set(int i, float x, float y) {
    at[2 * i].set(x);
    at[2 * i + 1].set(y);
  }
};
template <>
struct WideA<float> : OperandA<float> {};
template <>
struct OperandB<float> {
  Tf32Parts at[4];
};

__device__ __forceinline__ void mma(float (&d)[4], const OperandA<__nv_bfloat16>& a,
                                    const OperandB<__nv_bfloat16>& b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.pair[0]), "r"(a.pair[1]), "r"(a.pair[2]), "r"(a.pair[3]), "r"(b.pair[0]), "r"(b.pair[1]));
}

__device__ __forceinline__ void mma(float (&d)[4], const WideA<__nv_bfloat16>& a,
                                    const OperandB<__nv_bfloat16>& b) {
  mma(d, a.small, b);
  mma(d, a.big, b);
}

__device__ __forceinline__ void mma_tf32(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                         uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma(float (&d)[4], const OperandA<float>& a, const OperandB<float>& b) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Tf32Parts *p = a.at + 4 * half, *q = b.at + 2 * half;
    mma_tf32(d, p[0].small, p[2].small, p[1].small, p[3].small, q[0].big, q[1].big);
    mma_tf32(d, p[0].big, p[2].big, p[1].big, p[3].big, q[0].small, q[1].small);
    mma_tf32(d, p[0].big, p[2].big, p[1].big, p[3].big, q[0].big, q[1].big);
  }
}

// Two neighbours in memory, at an even offset, and two that are `stride` apart.
__device__ __forceinline__ void set_pair(OperandA<__nv_bfloat16>& a, int i, const __nv_bfloat16* from) {
  a.pair[i] = *reinterpret_cast<const uint32_t*>(from);
}
__device__ __forceinline__ void set_pair(OperandB<__nv_bfloat16>& b, int i, const __nv_bfloat16* from) {
  b.pair[i] = *reinterpret_cast<const uint32_t*>(from);
}
__device__ __forceinline__ void set_pair(OperandA<float>& a, int i, const float* from) {
  const float2 pair = *reinterpret_cast<const float2*>(from);
  a.set(i, pair.x, pair.y);
}
__device__ __forceinline__ void set_pair(OperandB<float>& b, int i, const float* from) {
  const float2 pair = *reinterpret_cast<const float2*>(from);
  b.at[2 * i].set(pair.x);
  b.at[2 * i + 1].set(pair.y);
}
__device__ __forceinline__ void set_strided(OperandB<__nv_bfloat16>& b, int i, const __nv_bfloat16* from,
                                            int stride) {
  const uint32_t x = *reinterpret_cast<const uint16_t*>(from);
  const uint32_t y = *reinterpret_cast<const uint16_t*>(from + stride);
  b.pair[i] = x | y << 16;
}
__device__ __forceinline__ void set_strided(OperandB<float>& b, int i, const float* from, int stride) {
  b.at[2 * i].set(from[0]);
  b.at[2 * i + 1].set(from[stride]);
}

// A whose element (row, k) is m[row * stride + k]; B whose element (k, n) is m[n * stride + k], or transposed
// m[k * stride + n].
template <class T>
__device__ __forceinline__ OperandA<T> load_a(const T* m, int stride, int lane) {
  const T* at = m + (lane / 4) * stride + (lane % 4) * 2;
  OperandA<T> a;
  set_pair(a, 0, at);
  set_pair(a, 1, at + 8 * stride);
  set_pair(a, 2, at + 8);
  set_pair(a, 3, at + 8 * stride + 8);
  return a;
}
template <class T>
__device__ __forceinline__ OperandB<T> load_b(const T* m, int stride, int lane) {
  const T* at = m + (lane / 4) * stride + (lane % 4) * 2;
  OperandB<T> b;
  set_pair(b, 0, at);
  set_pair(b, 1, at + 8);
  return b;
}
template <class T>
__device__ __forceinline__ OperandB<T> load_b_transposed(const T* m, int stride, int lane) {
  const T* at = m + (lane % 4) * 2 * stride + lane / 4;
  OperandB<T> b;
  set_strided(b, 0, at, stride);
  set_strided(b, 1, at + 8 * stride, stride);
  return b;
}

// The B of columns 0 .. 7 and that of columns 8 .. 15.
template <class T>
struct OperandsB {
  OperandB<T> left, right;
};
template <class T>
__device__ __forceinline__ OperandsB<T> load_two_b(const T* m, int stride, int lane) {
  return {load_b(m, stride, lane), load_b(m + 8 * stride, stride, lane)};
}
template <class T>
__device__ __forceinline__ OperandsB<T> load_two_b_transposed(const T* m, int stride, int lane) {
  return {load_b_transposed(m, stride, lane), load_b_transposed(m + 8, stride, lane)};
}

// bf16 in shared memory, rows at multiples of 16 bytes.
__device__ __forceinline__ OperandA<bf16> load_a(const bf16* m, int stride, int lane) {
  OperandA<bf16> a;
  load_a(a.pair, m, stride, lane);
  return a;
}
__device__ __forceinline__ OperandsB<bf16> load_two_b(const bf16* m, int stride, int lane) {
  uint32_t b[4];
  load_b(b, m, stride, lane);
  return {{b[0], b[1]}, {b[2], b[3]}};
}
__device__ __forceinline__ OperandsB<bf16> load_two_b_transposed(const bf16* m, int stride, int lane) {
  uint32_t b[4];
  load_b_trans(b, m, stride, lane);
  return {{b[0], b[1]}, {b[2], b[3]}};
}

template <class T, class A>
__device__ __forceinline__ void mma(float (&left)[4], float (&right)[4], const A& a, const OperandsB<T>& b) {
  mma(left, a, b.left);
  mma(right, a, b.right);
}

}  // namespace hax::ops::cuda
