// What the kernels whose block owns a tile of queries share: the walk over the keys that the tile may attend
// to. They are listed, span by span, and their rows gathered in tiles.
#pragma once

#include "lib/ops/cuda/attention_tiles.cuh"

namespace hax::ops::cuda {

constexpr int kQueryThreads = 128;
// Blocks on a multiprocessor.
template <class T, int DV>
constexpr int kQueryBlocks = sizeof(T) == 4 || DV > 128 ? 1
                             : DV > 64                  ? 3
                                                        : 4;
// Stages that a block walks through, and all of its stages: the last holds the block's own rows, of bf16 only
// until they are in registers.
template <class T>
constexpr int kWalkStages = sizeof(T) == 4 ? 2 : 3;
constexpr int kQueryStages = 3;

// The keys of a tile as the membership tests see them; position -1 and life 0: none.
struct KeyColumns {
  int position[kTile];
  uint32_t life[kTile], code[kTile];
};

struct KeyWalk {
  KeyColumns columns[kQueryStages];
  BinTable bins;  // of the codes that the queries ask for
  uint16_t list[kSpan];
  int warp_counts[kQueryThreads / 32];
};

// visit(K tile, V tile, columns) for the keys that a query of the block may attend to, all of the sequence's
// with `everything`. The block's own rows are on their way, as one group of copies; ready() runs once, before
// any visit, when they have come. All threads call it.
template <class T, int DQK, int DV, class Visit, class Ready>
__device__ __forceinline__ void for_keys(const TileKeys& keys, const Place& place, bool everything,
                                         Stage<T, DQK, DV>* stages, KeyWalk& walk, Rows<const T> K,
                                         Rows<const T> V, int d_qk, int d_v, const Visit& visit,
                                         const Ready& ready) {
  const int i0 = place.tile * kTile, row = i0 + static_cast<int>(threadIdx.x);
  walk.bins.clear();
  __syncthreads();
  if (keys.key_code && threadIdx.x < kTile && row < place.n) {
    const uint32_t low = keys.query_code[place.begin + row], high = low + keys.width;
    walk.bins.add(high >> keys.shift, low, high - 1);
  }
  __syncthreads();
  const int keys_end = everything ? place.n : min(place.n, i0 + kTile);
  const uint32_t* life = keys.life + place.begin;
  const uint32_t* code = keys.key_code ? keys.key_code + place.begin : nullptr;
  const auto load = [&](int j) { return make_uint2(life[j], code ? code[j] : 0u); };
  const auto wanted = [&](int j, const uint2& own) {
    return everything || (own.x > 0 && static_cast<uint32_t>(j) + own.x > static_cast<uint32_t>(i0)) ||
           (code && walk.bins.meets(own.y >> keys.shift, own.y, own.y));
  };
  for (int span = 0; span < keys_end; span += kSpan) {
    const int count = list_positions<kQueryThreads / 32>(walk.list, walk.warp_counts, span,
                                                         min(keys_end, span + kSpan), load, wanted);
    const auto position = [&](int tile, int r) {
      const int at = tile * kTile + r;
      return at < count ? span + walk.list[at] : -1;
    };
    for_tiles<kWalkStages<T>>(
        count,
        [&](int tile, int stage) {
          const auto key_row = [&](int r) {
            const int j = position(tile, r);
            return j < 0 ? int64_t{-1} : place.begin + j;
          };
          load_rows<DQK, kQueryThreads>(stages[stage].narrow, K, d_qk, key_row);
          load_rows<DV, kQueryThreads>(stages[stage].wide, V, d_v, key_row);
          if (threadIdx.x < kTile) {
            const int r = threadIdx.x, j = position(tile, r);
            KeyColumns& columns = walk.columns[stage];
            columns.position[r] = j;
            copy_word(&columns.life[r], life + max(j, 0), j >= 0);
            copy_word(&columns.code[r], code ? code + max(j, 0) : life, code && j >= 0);
          }
        },
        [&](int, int stage) { visit(stages[stage].narrow, stages[stage].wide, walk.columns[stage]); },
        [&] {
          if (span > 0) return;
          wait_copies<kWalkStages<T> - 1>();
          __syncthreads();
          ready();
        });
  }
}

}  // namespace hax::ops::cuda
