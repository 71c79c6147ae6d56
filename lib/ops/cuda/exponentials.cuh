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

// log2(x), -infinity of 0.
__device__ __forceinline__ float log2_fast(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// log(1 + exp(x)), of relative error below 2e-6 for x > -20. With e = exp(-|x|) it is max(x, 0) + log(1 + e),
// and log(1 + e) = 2 artanh(s), s = e / (2 + e) <= 1/3, whose series' remainder is a polynomial fitted in
// s^2.
__device__ __forceinline__ float softplus_by_series(float x) {
  const float e = exp2_fast(fabsf(x) * -kLog2E), s = __fdividef(e, 2.0f + e), z = s * s;
  const float rest = 0.66666413f + z * (0.40021699f + z * (0.27999139f + z * 0.2802447f));
  return fmaxf(x, 0.0f) + s * (2.0f + z * rest);
}

// The derivative of softplus at the place where its value is y.
__device__ __forceinline__ float softplus_slope(float y) { return -expm1f(-y); }

// The same with a relative error of about 1e-5, for results in bf16.
__device__ __forceinline__ float softplus_fast(float x) {
  const float u = exp2_fast(x * kLog2E);
  const float small = u * (1.0f - u * (0.5f - u * (1.0f / 3.0f)));
  return x > 20.0f ? x : u < 0.03125f ? small : __logf(1.0f + u);
}
__device__ __forceinline__ float softplus_slope_fast(float y) {
  const float small = y * (1.0f - y * (0.5f - y * (1.0f / 6.0f)));
  return y < 0.03125f ? small : 1.0f - exp2_fast(-y * kLog2E);
}

}  // namespace hax::ops::cuda
