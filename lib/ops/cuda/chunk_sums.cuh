// Sums of features over chunks of a sequence: what lets blocks of one sequence begin a running sum in its
// middle.
#pragma once

#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

constexpr int kChunk = 64;          // positions
constexpr int kChunkThreads = 128;  // of a block that works on a chunk

inline int64_t chunks_of(const Layout& layout) { return ceil_div(layout.max_seqlen, kChunk); }
inline dim3 chunk_grid(const Layout& layout) {
  return {static_cast<unsigned>(chunks_of(layout)), static_cast<unsigned>(layout.batch)};
}

// The chunk of a block of chunk_grid: rows [first, first + n) at positions from `position` on; n <= 0: none.
struct Chunk {
  int64_t begin, first;
  int position, n, length;  // length: of the sequence
};
__device__ __forceinline__ Chunk chunk_of_block(const Layout& layout) {
  Chunk c;
  c.begin = layout.cu_seqlens[blockIdx.y];
  c.length = static_cast<int>(layout.cu_seqlens[blockIdx.y + 1] - c.begin);
  c.position = static_cast<int>(blockIdx.x) * kChunk;
  c.first = c.begin + c.position;
  c.n = min(kChunk, c.length - c.position);
  return c;
}

constexpr int kBatch = 8;  // loads that a thread has on their way together

// store(p, f, load(p, f)) for all positions of a chunk and all features, neighbouring threads at neighbouring
// features.
template <class Load, class Store>
__device__ __forceinline__ void for_chunk(int features, const Load& load, const Store& store) {
  const int across = min(features, kChunkThreads), down = kChunkThreads / across;
  const int first = static_cast<int>(threadIdx.x) / across;
  if (first >= down) return;
  for (int f = static_cast<int>(threadIdx.x) % across; f < features; f += across) {
    for (int p0 = first; p0 < kChunk; p0 += kBatch * down) {
      float values[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) values[i] = p0 + i * down < kChunk ? load(p0 + i * down, f) : 0.0f;
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (p0 + i * down < kChunk) store(p0 + i * down, f, values[i]);
      }
    }
  }
}

// x (kChunk, features + 1) in shared memory: columns [0, d) of A and, if features is 2 d, of B behind them.
template <class T>
__device__ __forceinline__ void load_chunk(float* x, Rows<const T> A, Rows<const T> B, const Chunk& chunk,
                                           int d, int features) {
  for_chunk(
      features,
      [&](int p, int f) {
        const T* from = f < d ? A.data + f : B.data + f - d;
        return p < chunk.n ? to_float(from[(chunk.first + p) * (f < d ? A.stride : B.stride)]) : 0.0f;
      },
      [&](int p, int f, float value) { x[p * (features + 1) + f] = value; });
}

// sums (batch, chunks, features): of the columns of A (and B).
template <class T>
__global__ void __launch_bounds__(kChunkThreads)
    chunk_sums_kernel(Layout layout, int d, int features, Rows<const T> A, Rows<const T> B,
                      float* __restrict__ sums) {
  const Chunk chunk = chunk_of_block(layout);
  for (int f = threadIdx.x; f < features; f += kChunkThreads) {
    const Rows<const T>& from = f < d ? A : B;
    const T* column = from.data + (f < d ? f : f - d);
    float sum = 0.0f;
#pragma unroll 16
    for (int p = 0; p < chunk.n; ++p) sum += to_float(column[(chunk.first + p) * from.stride]);
    sums[(static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * features + f] = sum;
  }
}

// The sum of feature f over the first `chunks` chunks of this block's sequence.
__device__ __forceinline__ float sum_of_chunks(const float* __restrict__ sums, int features, int f,
                                               int chunks) {
  const float* own = sums + static_cast<int64_t>(blockIdx.y) * gridDim.x * features + f;
  float sum = 0.0f;
#pragma unroll 8
  for (int c = 0; c < chunks; ++c) sum += own[c * features];
  return sum;
}

// Running sums of the chunk's features in place: x[p, f] becomes value(p, x[p, f], sum up to p), one thread a
// feature and segment of the chunk. partial (kChunkThreads) in shared memory. All threads call it.
template <class Value>
__device__ __forceinline__ void running_sums(float* x, float* partial, const float* __restrict__ sums,
                                             int features, const Value& value) {
  const int segments = max(1, kChunkThreads / features),
            each = (kChunk / kBatch + segments - 1) / segments * kBatch;
  for (int f0 = 0; f0 < features; f0 += kChunkThreads) {
    const int f = f0 + threadIdx.x % min(features, kChunkThreads),
              segment = threadIdx.x / min(features, kChunkThreads);
    const bool real = f < features && segment < segments;
    const int first = segment * each, last = min(first + each, kChunk);
    float sum = 0.0f;
    for (int p0 = first; real && p0 < last; p0 += kBatch) {
#pragma unroll
      for (int i = 0; i < kBatch; ++i) sum += x[(p0 + i) * (features + 1) + f];
    }
    __syncthreads();
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (!real) continue;
    float running = sum_of_chunks(sums, features, f, static_cast<int>(blockIdx.x));
    for (int s = 0; s < segment; ++s) running += partial[s * features + f - f0];
    for (int p0 = first; p0 < last; p0 += kBatch) {
      float values[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) values[i] = x[(p0 + i) * (features + 1) + f];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        running += values[i];
        values[i] = value(p0 + i, values[i], running);
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) x[(p0 + i) * (features + 1) + f] = values[i];
    }
  }
  __syncthreads();
}

}  // namespace hax::ops::cuda
