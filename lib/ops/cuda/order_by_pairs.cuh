// Orders in sequences of at most kPairsLongest positions: a thread a position compares its number with all
// others, which lie in shared memory. The work grows with the square of the length, but nothing waits.
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

constexpr int64_t kPairsLongest = 4096;
constexpr int kPairThreads = 128;

inline dim3 pairs_grid(const Layout& layout) {
  return {static_cast<unsigned>(ceil_div(layout.max_seqlen, kPairThreads)),
          static_cast<unsigned>(layout.batch)};
}
// Room for a sequence's numbers, and kPairThreads more behind its end, as multiples of what a block reads.
inline size_t pairs_bytes(const Layout& layout) {
  return sizeof(uint32_t) * static_cast<size_t>(ceil_div(layout.max_seqlen, kPairThreads) + 1) * kPairThreads;
}

// For how many of 32 numbers, 16-byte aligned, does it hold?
template <class Holds>
__device__ __forceinline__ int count_32(const uint32_t* numbers, const Holds& holds) {
  int counts[4] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint4 v = reinterpret_cast<const uint4*>(numbers)[i];
    counts[i % 4] += (holds(v.x) + holds(v.y)) + (holds(v.z) + holds(v.w));
  }
  return (counts[0] + counts[1]) + (counts[2] + counts[3]);
}

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

// Puts number(i) of 0 <= i < n, and `behind` for the rest, in numbers[0, room); room is a multiple of
// kPairThreads.
template <class Number>
__device__ __forceinline__ void stage_numbers(uint32_t* numbers, int n, int room, uint32_t behind,
                                              const Number& number) {
  constexpr int kTogether = 8;
  for (int i0 = threadIdx.x; i0 < room; i0 += kTogether * kPairThreads) {
    uint32_t each[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const int i = i0 + k * kPairThreads;
      each[k] = i < n ? number(i) : behind;
    }
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      if (i0 + k * kPairThreads < room) numbers[i0 + k * kPairThreads] = each[k];
    }
  }
}

// How many of `numbers` come before position p with `own`, larger numbers first and earlier ones first among
// equals; at least `enough` where there are as many. n: of the sequence; zeros behind it. All lanes of a warp
// call it, with neighbouring p.
__device__ __forceinline__ int place_in_order(const uint32_t* numbers, int n, int p, uint32_t own,
                                              int enough) {
  const int p0 = p - static_cast<int>(threadIdx.x) % 32, after = p0 + 32;
  int place = 0;
  for (int i = 0; i < p0 && __any_sync(0xffffffffu, place < enough); i += 32)
    place += count_32(numbers + i, [&](uint32_t v) { return v >= own; });
#pragma unroll
  for (int i = 0; i < 32; ++i) place += p0 + i < p ? numbers[p0 + i] >= own : numbers[p0 + i] > own;
  for (int i = after; i < n && __any_sync(0xffffffffu, place < enough); i += 32)
    place += count_32(numbers + i, [&](uint32_t v) { return v > own; });
  return place;
}

}  // namespace hax::ops::cuda
