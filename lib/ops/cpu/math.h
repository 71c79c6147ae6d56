// Elementary functions of fp32 that a compiler can vectorise: no branch, no table, no library call.
//
// Relative error at most 2e-7 where the result is a normal number; infinities and NaN as in <cmath>.
// The kernels are compiled with reassociation allowed, so no step here leans on the order of a sum.
#pragma once

#include <bit>
#include <cstdint>

namespace hax::cpu {

// a * b + c, rounded once where the processor can.
inline float multiply_add(float a, float b, float c) {
#ifdef __FMA__
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2; exp(r) by its Taylor sum, whose first
// missing term is below 6e-9.
inline float exp(float x) {
  constexpr float kUnderflow = -104.0f;  // below the least subnormal
  constexpr float kOverflow = 89.0f;     // above the largest float
  // Written so that a NaN passes through both.
  x = x < kUnderflow ? kUnderflow : x;
  x = x > kOverflow ? kOverflow : x;
  const float n = __builtin_rintf(x * 1.44269504f);
#ifdef __FMA__
  // ln 2 in two parts: n times the first is exact.
  const float r = __builtin_fmaf(-n, -2.12194440e-4f, __builtin_fmaf(-n, 0.693359375f, x));
#else
  const float r =
      static_cast<float>(static_cast<double>(x) - static_cast<double>(n) * 0.69314718055994530942);
#endif
  float p = 1.0f / 5040;
  p = multiply_add(p, r, 1.0f / 720);
  p = multiply_add(p, r, 1.0f / 120);
  p = multiply_add(p, r, 1.0f / 24);
  p = multiply_add(p, r, 1.0f / 6);
  p = multiply_add(p, r, 0.5f);
  p = multiply_add(p, r, 1.0f);
  p = multiply_add(p, r, 1.0f);
  // 2^n in two factors, for the ends of the range: one goes into p's exponent, which it cannot leave, and the
  // other is a normal number. A NaN has no integer.
  const int32_t power = n == n ? static_cast<int32_t>(n) : 0;
  const int32_t half = power >> 1;
  const float scaled = std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (static_cast<uint32_t>(half) << 23));
  return scaled * std::bit_cast<float>(static_cast<uint32_t>(power - half + 127) << 23);
}

// log(1 + y) for 0 <= y <= 1: 2 artanh(s), s = y / (2 + y) <= 1/3, first missing term below 2e-9.
inline float log1p_unit(float y) {
  const float s = y / (2.0f + y);
  const float s2 = s * s;
  float p = 1.0f / 15;
  p = multiply_add(p, s2, 1.0f / 13);
  p = multiply_add(p, s2, 1.0f / 11);
  p = multiply_add(p, s2, 1.0f / 9);
  p = multiply_add(p, s2, 1.0f / 7);
  p = multiply_add(p, s2, 1.0f / 5);
  p = multiply_add(p, s2, 1.0f / 3);
  return 2.0f * multiply_add(p * s2, s, s);
}

inline float sigmoid(float x) {
  const float magnitude = x < 0 ? -x : x;
  const float e = exp(-magnitude);
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}

inline float silu(float x) { return x * sigmoid(x); }

// log(1 + exp(x)).
inline float softplus(float x) {
  const float magnitude = x < 0 ? -x : x;
  return (x < 0 ? 0.0f : x) + log1p_unit(exp(-magnitude));
}

}  // namespace hax::cpu
