// Chunks of a sequence in registers, and sums of features over them: what lets blocks of one sequence begin a
// running sum in its middle.
#pragma once

#include "lib/ops/cuda/launch.h"
#include "lib/ops/cuda/vectors.cuh"

namespace hax::ops::cuda {

constexpr int kChunk = 64;  // positions

inline int64_t chunks_of(const Layout& layout) { return ceil_div(layout.max_seqlen, kChunk); }
inline dim3 chunk_grid(const Layout& layout, unsigned sides = 1) {
  return {static_cast<unsigned>(chunks_of(layout)), static_cast<unsigned>(layout.batch), sides};
}

// The chunk of a block of chunk_grid: rows [first, first + n) at positions from `position` on; n <= 0: none.
struct Chunk {
  int64_t first;
  int position, n, length;  // length: of the sequence
};
__device__ __forceinline__ Chunk chunk_of_block(const Layout& layout) {
  Chunk c;
  const int64_t begin = layout.cu_seqlens[blockIdx.y];
  c.length = static_cast<int>(layout.cu_seqlens[blockIdx.y + 1] - begin);
  c.position = static_cast<int>(blockIdx.x) * kChunk;
  c.first = begin + c.position;
  c.n = min(kChunk, c.length - c.position);
  return c;
}

// Rows of d features, and whether each may be loaded four features at once.
template <class T>
struct Features {
  Rows<const T> rows;
  int d;
  bool fours;
};
template <class T>
Features<T> features_of(Rows<const T> rows, int64_t d) {
  return {
      rows, static_cast<int>(d),
      d % 4 == 0 && rows.stride % 4 == 0 && reinterpret_cast<uintptr_t>(rows.data) % (4 * sizeof(T)) == 0};
}

// A or B, without a copy of both.
template <class T>
__device__ __forceinline__ Features<T> side_of(int side, const Features<T>& A, const Features<T>& B) {
  return {{side == 0 ? A.rows.data : B.rows.data, side == 0 ? A.rows.stride : B.rows.stride},
          A.d,
          side == 0 ? A.fours : B.fours};
}

// Threads that hold a chunk: L lanes a row, N times four features a lane, a thread kRows rows that follow
// each other.
template <int L, int N>
struct ChunkTeam {
  static constexpr int F = 4 * N, kThreads = L == 32 ? 256 : 128, kGroups = kThreads / L;
  static constexpr int kRows = kChunk / kGroups, kWarps = kThreads / 32;
  static constexpr int kShared = kWarps * L * F;  // floats that a sum over the chunk takes
  struct Tag {
    using Type = ChunkTeam;
  };
  int lane, group, warp;
  __device__ explicit ChunkTeam(int thread) : lane(thread % L), group(thread / L), warp(thread / 32) {}
  __device__ int feature(int i) const { return (i / 4 * L + lane) * 4 + i % 4; }
  __device__ int row(int r) const { return group * kRows + r; }

  // Zeros behind the chunk and the features.
  template <class T>
  __device__ __forceinline__ void load(float (&x)[kRows][F], const Features<T>& from,
                                       const Chunk& chunk) const {
    Packed<T, 4> fours[kRows][N];
    const T* data = from.rows.data + (chunk.first + row(0)) * from.rows.stride;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
        fours[r][n] = {};
        if (row(r) < chunk.n) load_four(fours[r][n], data + r * from.rows.stride, n, from.d, from.fours);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < F; ++i) x[r][i] = fours[r][i / 4].get(i % 4);
    }
  }

  template <class T>
  __device__ __forceinline__ void store(T* row, const float (&x)[F], int d, bool fours) const {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int f = feature(4 * n);
      if (fours) {
        if (f < d) store_vector<4>(row + f, x + 4 * n);
        continue;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (f + i < d) row[f + i] = from_float<T>(x[4 * n + i]);
      }
    }
  }
  // The sum of x over the lanes of a row.
  __device__ __forceinline__ float over_row(float x) const {
#pragma unroll
    for (int step = L / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
  }

  // Adds the sums of the first `chunks` chunks of this block's sequence, spread over the groups, to `to`.
  // sums (batch, chunks, pitch), from the team's first feature on.
  __device__ __forceinline__ void add_chunks(float (&to)[F], const float* __restrict__ sums, int pitch, int d,
                                             bool fours, int chunks) const {
    const float* own = sums + static_cast<int64_t>(blockIdx.y) * gridDim.x * pitch;
#pragma unroll 2
    for (int c = group; c < chunks; c += kGroups) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
        Packed<float, 4> four = {};
        load_four(four, own + static_cast<int64_t>(c) * pitch, n, d, fours);
#pragma unroll
        for (int i = 0; i < 4; ++i) to[4 * n + i] += four.get(i);
      }
    }
  }

  // The sums of x over all groups, in every thread. shared: kShared floats. All threads of the block call it.
  __device__ __forceinline__ void sum(float (&x)[F], float* shared) const {
    to_shared(x, shared);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < F; ++i) {
      x[i] = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) x[i] += shared[(w * F + i) * L + lane];
    }
  }

  // Running sums of x over the chunk's rows, in place, that begin with the sum of `entering` over all groups.
  // shared: 2 kShared floats. All threads of the block call it.
  __device__ __forceinline__ void running(float (&x)[kRows][F], float (&entering)[F], float* shared) const {
    const int in_warp = static_cast<int>(threadIdx.x) % 32;
    float before[F];
    float* through_warps = shared + kShared;
#pragma unroll
    for (int i = 0; i < F; ++i) {
#pragma unroll
      for (int r = 1; r < kRows; ++r) x[r][i] += x[r - 1][i];
      float through = x[kRows - 1][i];
#pragma unroll
      for (int step = L; step < 32; step *= 2) {
        const float other = __shfl_up_sync(0xffffffffu, through, step);
        if (in_warp >= step) through += other;
      }
      const float other = __shfl_up_sync(0xffffffffu, through, L % 32);
      before[i] = L < 32 && in_warp >= L ? other : 0.0f;
      if (in_warp >= 32 - L) through_warps[(warp * F + i) * L + lane] = through;
    }
    to_shared(entering, shared);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < F; ++i) {
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        before[i] += shared[(w * F + i) * L + lane];
        if (w < warp) before[i] += through_warps[(w * F + i) * L + lane];
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) x[r][i] += before[i];
    }
  }

 private:
  template <class T>
  __device__ __forceinline__ void load_four(Packed<T, 4>& to, const T* row, int n, int d, bool fours) const {
    const int f = feature(4 * n);
    if (fours) {
      if (f < d) to = load_packed<4>(row + f);
      return;
    }
    float each[4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (f + i < d) each[i] = to_float(row[f + i]);
    }
    to.set(each);
  }
  // The sums of x over each warp's groups, to shared (kWarps, F, L).
  __device__ __forceinline__ void to_shared(float (&x)[F], float* shared) const {
#pragma unroll
    for (int i = 0; i < F; ++i) {
#pragma unroll
      for (int step = L; step < 32; step *= 2) x[i] += __shfl_xor_sync(0xffffffffu, x[i], step);
      if (threadIdx.x % 32 < L) shared[(warp * F + i) * L + lane] = x[i];
    }
  }
};

// Calls f with the team for d features, at most kWidest <= 256.
template <int64_t kWidest, class F>
void with_chunk_team(int64_t d, const F& f) {
  if (d <= 16) return f(ChunkTeam<4, 1>::Tag());
  if (d <= 32) return f(ChunkTeam<8, 1>::Tag());
  if (d <= 64) return f(ChunkTeam<16, 1>::Tag());
  if (d <= 128) return f(ChunkTeam<32, 1>::Tag());
  if constexpr (kWidest > 128) f(ChunkTeam<32, 2>::Tag());
}

// sums (batch, chunks, sides, d): of the features of A and, on a second side, of B.
template <class T, class Team>
__global__ void __launch_bounds__(Team::kThreads)
    chunk_sums_kernel(Layout layout, Features<T> A, Features<T> B, float* __restrict__ sums) {
  __shared__ float shared[Team::kShared];
  const Chunk chunk = chunk_of_block(layout);
  if (chunk.n <= 0) return;
  const Team team(threadIdx.x);
  const int side = static_cast<int>(blockIdx.z);
  float x[Team::kRows][Team::F], sum[Team::F] = {};
  team.load(x, side_of(side, A, B), chunk);
#pragma unroll
  for (int r = 0; r < Team::kRows; ++r) {
#pragma unroll
    for (int i = 0; i < Team::F; ++i) sum[i] += x[r][i];
  }
  team.sum(sum, shared);
  if (team.group != 0) return;
  float* own = sums + ((static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * gridDim.z + side) * A.d;
#pragma unroll
  for (int i = 0; i < Team::F; ++i) {
    if (team.feature(i) < A.d) own[team.feature(i)] = sum[i];
  }
}

}  // namespace hax::ops::cuda
