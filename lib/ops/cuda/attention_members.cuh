// Which pairs of a tile may attend, on the device (TileKeys, lib/ops/cuda/sparse_attention.h), and which keys
// or queries a tile has to look at: of the thousands before it a few hundred, which are listed first.
#pragma once

#include "lib/ops/cuda/sparse_attention.h"
#include "lib/ops/cuda/tiles.cuh"

namespace hax::ops::cuda {

constexpr int kTile = 64;    // queries, and keys, of a tile
constexpr int kSpan = 1024;  // positions that are listed together
constexpr int kSlots = 256;  // of a table of bins; a bin's slot is its number modulo kSlots

// One query as the tests see it.
struct Query {
  int position;     // -1: none, as i - j is negative for every key
  uint32_t code;    // of LSH
  bool everything;  // empty and uniform: every position of the sequence, at
                    // score 0
};
__device__ __forceinline__ Query load_query(const TileKeys& keys, int64_t row, int64_t end, int position) {
  Query q{-1, 0u, false};
  if (row >= end) return q;
  q.position = position;
  if (keys.key_code) q.code = keys.query_code[row];
  q.everything = keys.uniform_empty && keys.empty[row] != 0;
  return q;
}

// `width` is 0 without LSH, which turns the second test off.
__device__ __forceinline__ bool may_attend(int i, uint32_t query_code, int j, uint32_t life,
                                           uint32_t key_code, uint32_t width) {
  return static_cast<uint32_t>(i - j) < life || key_code - query_code < width;
}

// The tile of a block: blocks of all sequences with tile `tiles - 1` come first, as those have the most work,
// or with tile 0 if `from_first`.
struct Place {
  int64_t begin, end;  // rows of the sequence
  int n;               // its length
  int tile;            // -1: none
};
__device__ __forceinline__ Place place_of_block(const Layout& layout, int most_tiles, bool from_first) {
  const int batch = static_cast<int>(layout.batch), rank = static_cast<int>(blockIdx.x) / batch;
  const int b = static_cast<int>(blockIdx.x) % batch;
  Place p;
  p.begin = layout.cu_seqlens[b];
  p.end = layout.cu_seqlens[b + 1];
  p.n = static_cast<int>(p.end - p.begin);
  p.tile = from_first ? rank : most_tiles - 1 - rank;
  if (p.tile >= (p.n + kTile - 1) / kTile) p.tile = -1;
  return p;
}

// The smallest and the largest code that the tile's own side holds, or asks for, in the bins of a slot.
struct BinTable {
  uint32_t least[kSlots], most[kSlots];

  // By all threads of a block, which are to be synchronised behind.
  __device__ void clear() {
    for (int s = threadIdx.x; s < kSlots; s += blockDim.x) {
      least[s] = 0xffffffffu;
      most[s] = 0u;
    }
  }
  __device__ void add(uint32_t slot, uint32_t low, uint32_t high) {
    atomicMin(&least[slot % kSlots], low);
    atomicMax(&most[slot % kSlots], high);
  }
  __device__ bool meets(uint32_t slot, uint32_t low, uint32_t high) const {
    return least[slot % kSlots] <= high && most[slot % kSlots] >= low;
  }
};

// The positions of [first, last), at most kSpan of them, that `wanted` holds for, ascending, in list, less
// `first`; returns how many. wanted(p, load(p)): the loads of several positions are on their way together.
// All threads of a block of WARPS warps call it, and find it synchronised.
template <int WARPS, class Load, class Wanted>
__device__ __forceinline__ int list_positions(uint16_t* list, int* warp_counts, int first, int last,
                                              const Load& load, const Wanted& wanted) {
  constexpr int kRounds = kSpan / 32 / WARPS, kTogether = 4;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int share = (last - first + 32 * WARPS - 1) / (32 * WARPS) * 32, begin = first + warp * share;
  uint32_t found[kRounds];
  int count = 0;
#pragma unroll
  for (int r0 = 0; r0 < kRounds; r0 += kTogether) {
#pragma unroll
    for (int r = r0; r < r0 + kTogether; ++r) found[r] = 0;
    if (r0 * 32 >= share) continue;
    decltype(load(0)) loaded[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; ++r) loaded[r] = load(min(begin + (r0 + r) * 32 + lane, last - 1));
#pragma unroll
    for (int r = 0; r < kTogether; ++r) {
      const int in_share = (r0 + r) * 32 + lane, p = begin + in_share;
      found[r0 + r] = __ballot_sync(0xffffffffu, in_share < share && p < last && wanted(p, loaded[r]));
      count += __popc(found[r0 + r]);
    }
  }
  if (lane == 0) warp_counts[warp] = count;
  __syncthreads();
  int at = 0, total = 0;
#pragma unroll
  for (int w = 0; w < WARPS; ++w) {
    at += w < warp ? warp_counts[w] : 0;
    total += warp_counts[w];
  }
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    if (r * 32 >= share) continue;
    if (found[r] >> lane & 1)
      list[at + __popc(found[r] & ((1u << lane) - 1))] = static_cast<uint16_t>(begin + r * 32 + lane - first);
    at += __popc(found[r]);
  }
  __syncthreads();
  return total;
}

}  // namespace hax::ops::cuda
