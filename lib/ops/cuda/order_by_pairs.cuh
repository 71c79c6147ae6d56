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
