// Exponentials of the scans and of attention.
#pragma once

namespace hax::ops::cuda {

constexpr float kLog2E = 1.4426950408889634f;

// 2^x, of about 22 bits.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// The derivative of softplus at the place where its value is y.
__device__ __forceinline__ float softplus_slope(float y) { return -expm1f(-y); }

}  // namespace hax::ops::cuda
