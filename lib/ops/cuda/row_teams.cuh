// Rows that are normed: a team of L lanes holds a row, each lane kHeld neighbouring features in registers,
// whatever width of vectors they are loaded by, so that sums do not depend on how a row lies in memory.
#pragma once

#include <algorithm>

#include "lib/ops/cuda/launch.h"
#include "lib/ops/cuda/vectors.cuh"
#include "lib/ops/cuda/warp.cuh"

namespace hax::ops::cuda {

constexpr int kTeamThreads = 256;  // of a block
constexpr int kHeld = 8;
constexpr int64_t kWidestTeam = int64_t{kTeamThreads} * kHeld;

// V: vectors that every row may be cut into.
template <int L, int V>
struct Team {
  static constexpr int kTeams = kTeamThreads / L;  // of a block
  struct Tag {
    using Type = Team;
  };
  int first, team;  // the lane's first feature, the team of its block
  __device__ Team()
      : first(static_cast<int>(threadIdx.x) % L * kHeld), team(static_cast<int>(threadIdx.x) / L) {}

  // A lane's share of a row, as it lies in memory.
  template <class T>
  struct Held {
    static constexpr int kVector = std::min<int>(V, 16 / sizeof(T));
    Packed<T, kVector> part[kHeld / kVector];
    __device__ __forceinline__ float get(int i) const { return part[i / kVector].get(i % kVector); }
  };

  // Zeros from feature d on.
  template <class T>
  __device__ __forceinline__ void load(Held<T>& to, Rows<const T> rows, int row, int d) const {
    constexpr int U = Held<T>::kVector;
    const T* from = rows.data + offset(row, rows.stride);
#pragma unroll
    for (int i = 0; i < kHeld; i += U) {
      if (first + i < d)
        to.part[i / U] = load_packed<U>(from + i);
      else
        to.part[i / U] = {};
    }
  }
  template <class T>
  __device__ __forceinline__ void store(Rows<T> rows, int row, int d, const float (&x)[kHeld]) const {
    constexpr int U = Held<T>::kVector;
    T* to = rows.data + offset(row, rows.stride);
#pragma unroll
    for (int i = 0; i < kHeld; i += U) {
      if (first + i < d) store_vector<U>(to + i, x + i);
    }
  }
  // Parameters lie anywhere.
  __device__ __forceinline__ void load_parameter(float (&to)[kHeld], const float* from, int d) const {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) to[i] = first + i < d ? from[first + i] : 0.0f;
  }

  // The sums of a and b over the team. All threads of the block call it.
  __device__ __forceinline__ float2 sum(float a, float b) const {
#pragma unroll
    for (int step = (L < 32 ? L : 32) / 2; step > 0; step /= 2) {
      a += __shfl_xor_sync(0xffffffffu, a, step);
      b += __shfl_xor_sync(0xffffffffu, b, step);
    }
    if constexpr (L > 32) {
      __shared__ float2 parts[kTeamThreads / 32];
      __syncthreads();
      if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = make_float2(a, b);
      __syncthreads();
      a = b = 0.0f;
#pragma unroll
      for (int w = 0; w < L / 32; ++w) {
        a += parts[team * (L / 32) + w].x;
        b += parts[team * (L / 32) + w].y;
      }
    }
    return make_float2(a, b);
  }

  // to (d): the sums of the lanes' own over the teams of the block; `shared` (kTeams, d). All threads call
  // it.
  __device__ __forceinline__ void sum_of_teams(const float (&own)[kHeld], float* shared, int d,
                                               float* to) const {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (first + i < d) shared[team * d + first + i] = own[i];
    }
    __syncthreads();
    for (int c = threadIdx.x; c < d; c += kTeamThreads) {
      float sum = 0.0f;
#pragma unroll
      for (int k = 0; k < kTeams; ++k) sum += shared[k * d + c];
      to[c] = sum;
    }
  }

 private:
  __device__ __forceinline__ int64_t offset(int row, int64_t stride) const {
    return static_cast<int64_t>(row) * static_cast<int>(stride) + first;
  }
};

// Lanes of a team that holds d features, at most kWidestTeam.
constexpr int team_lanes(int64_t d) {
  return d <= 64 ? 8 : d <= 128 ? 16 : d <= 256 ? 32 : d <= 1024 ? 128 : 256;
}

// Calls f with a team's Tag.
template <int V, class F>
void with_team(int64_t d, const F& f) {
  switch (team_lanes(d)) {
    case 8:
      return f(typename Team<8, V>::Tag());
    case 16:
      return f(typename Team<16, V>::Tag());
    case 32:
      return f(typename Team<32, V>::Tag());
    case 128:
      return f(typename Team<128, V>::Tag());
    default:
      return f(typename Team<256, V>::Tag());
  }
}

// Blocks that walk the rows, of which a multiprocessor holds up to at_once.
inline int64_t team_blocks(int64_t rows, int64_t d, int at_once) {
  constexpr int kMultiprocessors = 132;
  return std::min<int64_t>(ceil_div(rows, kTeamThreads / team_lanes(d)), at_once * kMultiprocessors);
}

}  // namespace hax::ops::cuda
