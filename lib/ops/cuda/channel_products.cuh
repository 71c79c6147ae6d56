// Sums over channels on tensor cores, D (16 x 8) += A (16 x 8) B (8 x 8), of numbers that a warp holds in
// registers. With g = lane / 4 and t = lane % 4 a lane holds
//   A: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)
//   B: (t, g), (t + 4, g)
//   D: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// T is what the sums are stored as. Products of bf16 results take A and B as TF32, 11 bits against the
// result's 8; those of fp32 results take each factor as two TF32 numbers, about 21 bits.
#pragma once

#include "lib/ops/cuda/mma.cuh"

namespace hax::ops::cuda {

// Tensor cores cut the last 13 bits of a number; half of what they stand for makes it rounding.
__device__ __forceinline__ uint32_t to_tf32(float x) { return __float_as_uint(x) + 0x1000u; }

template <class T>
__device__ __forceinline__ void add_product(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  if constexpr (sizeof(T) == 2) {
    mma_tf32(d, to_tf32(a[0]), to_tf32(a[1]), to_tf32(a[2]), to_tf32(a[3]), to_tf32(b[0]), to_tf32(b[1]));
  } else {
    uint32_t p[4], q[2], p_rest[4], q_rest[2];
    const auto split = [](float x, uint32_t& big, uint32_t& rest) {
      big = to_tf32(x) & 0xffffe000u;
      rest = __float_as_uint(x - __uint_as_float(big));
    };
#pragma unroll
    for (int i = 0; i < 4; ++i) split(a[i], p[i], p_rest[i]);
#pragma unroll
    for (int i = 0; i < 2; ++i) split(b[i], q[i], q_rest[i]);
    mma_tf32(d, p_rest[0], p_rest[1], p_rest[2], p_rest[3], q[0], q[1]);
    mma_tf32(d, p[0], p[1], p[2], p[3], q_rest[0], q_rest[1]);
    mma_tf32(d, p[0], p[1], p[2], p[3], q[0], q[1]);
  }
}

}  // namespace hax::ops::cuda
