// What a warp computes together.
#pragma once

namespace hax::ops::cuda {

// The sum of all lanes' x, in every lane; the order of the additions is fixed.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

}  // namespace hax::ops::cuda
