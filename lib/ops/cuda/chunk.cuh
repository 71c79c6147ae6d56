// Scans in parallel over chunks. The packed rows are cut into windows of kChunk rows, wherever sequences
// begin: a chunk may hold the end of one sequence, some whole ones and the beginning of the next. A state
// enters a chunk only if its first row is not a sequence's first, and belongs to the rows in front of the
// first start; one leaves it only if the next chunk's first row goes on with the same sequence.
#pragma once

#include "lib/ops/cuda/exponentials.cuh"
#include "lib/ops/cuda/launch.h"
#include "lib/ops/cuda/warp.cuh"

namespace hax::ops::cuda {

constexpr int kChunk = 64;

inline int64_t chunks_of(const Layout& layout) { return ceil_div(layout.rows, kChunk); }

struct ChunkSpan {
  int64_t begin;    // first row
  int used;         // rows in use: they are the first of the chunk
  uint64_t starts;  // bit i: row i is the first of a sequence
  bool leaves;      // a state goes on to the next chunk

  // Rows that continue the sequence of the chunk before: they are the first of the chunk.
  __device__ __forceinline__ int entered() const { return starts ? __ffsll(starts) - 1 : used; }
  // Rows of the sequence that goes on behind the chunk begin here; kChunk where none does.
  __device__ __forceinline__ int tail() const { return !leaves ? kChunk : starts ? 63 - __clzll(starts) : 0; }
  // The first row, inside the chunk, of row i's sequence.
  __device__ __forceinline__ int first(int i) const {
    const uint64_t before = starts & (~0ull >> (63 - i));
    return before ? 63 - __clzll(before) : 0;
  }
  __device__ __forceinline__ bool starts_at(int i) const { return i < kChunk && (starts >> i & 1); }
};

// The same in every thread; all lanes of a warp take part.
__device__ __forceinline__ ChunkSpan chunk_span(const Layout& layout, int64_t chunk) {
  ChunkSpan span;
  span.begin = chunk * kChunk;
  const int64_t used = layout.cu_seqlens[layout.batch], left = used - span.begin;
  span.used = left < 0 ? 0 : left < kChunk ? static_cast<int>(left) : kChunk;
  const int lane = threadIdx.x % 32;
  const bool low = lane < span.used && layout.position[span.begin + lane] == 0;
  const bool high = lane + 32 < span.used && layout.position[span.begin + lane + 32] == 0;
  span.starts = __ballot_sync(0xffffffffu, low);
  span.starts |= static_cast<uint64_t>(__ballot_sync(0xffffffffu, high)) << 32;
  span.leaves = left > kChunk && layout.position[span.begin + kChunk] != 0;
  return span;
}

}  // namespace hax::ops::cuda
