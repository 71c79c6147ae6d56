// What a warp computes together.
#pragma once

namespace hax::ops::cuda {

// The sum of all lanes' x, in every lane; the order of the additions is fixed.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// Adds four values over the lanes with the same lane % 4; lanes with an even lane / 4 return the sum of value
// (lane / 16) * 2 + lane / 8 % 2.
template <class V>
__device__ __forceinline__ V sum_of_rows(const V (&values)[4], int lane) {
  const bool upper = lane & 16, second = lane & 8;
  V a = upper ? values[2] : values[0], b = upper ? values[3] : values[1];
  a += __shfl_xor_sync(0xffffffffu, upper ? values[0] : values[2], 16);
  b += __shfl_xor_sync(0xffffffffu, upper ? values[1] : values[3], 16);
  V sum = second ? b : a;
  sum += __shfl_xor_sync(0xffffffffu, second ? a : b, 8);
  return sum + __shfl_xor_sync(0xffffffffu, sum, 4);
}

}  // namespace hax::ops::cuda
