// Orders in sequences of at most kPairsLongest positions: each number is compared with all others, which lie
// in shared memory. The work grows with the square of the length, but nothing waits.
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

constexpr int64_t kPairsLongest = 4096;

// A bit for each of 32 numbers, 16-byte aligned, for which it holds.
template <class Holds>
__device__ __forceinline__ uint32_t mask_32(const uint32_t* numbers, const Holds& holds) {
  uint32_t masks[4] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint4 v = reinterpret_cast<const uint4*>(numbers)[i];
    const uint32_t each[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (holds(each[e])) masks[e] |= 1u << (4 * i + e);
    }
  }
  return (masks[0] | masks[1]) | (masks[2] | masks[3]);
}

// The place of the n-th set bit, n >= 1, of a mask that has as many.
__device__ __forceinline__ int nth_bit(uint32_t mask, int n) {
  int place = 0;
#pragma unroll
  for (int width = 16; width > 0; width /= 2) {
    const int low = __popc(mask & ((1u << width) - 1));
    if (n <= low) continue;
    n -= low;
    mask >>= width;
    place += width;
  }
  return place;
}

// A block of THREADS puts number(i) of 0 <= i < n, and `behind` for the rest, in numbers[0, room).
template <int THREADS, class Number>
__device__ __forceinline__ void stage_numbers(uint32_t* numbers, int n, int room, uint32_t behind,
                                              const Number& number) {
  constexpr int kTogether = 8;
  for (int i0 = threadIdx.x; i0 < room; i0 += kTogether * THREADS) {
    uint32_t each[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const int i = i0 + k * THREADS;
      each[k] = i < n ? number(i) : behind;
    }
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      if (i0 + k * THREADS < room) numbers[i0 + k * THREADS] = each[k];
    }
  }
}

}  // namespace hax::ops::cuda
