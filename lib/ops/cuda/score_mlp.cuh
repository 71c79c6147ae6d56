// The score MLP of key selection on tensor cores: a warp takes 16 rows, both layers' weights are in shared
// memory.
#pragma once

#include "lib/ops/cuda/key_selection.h"
#include "lib/ops/cuda/tiles.cuh"
#include "lib/ops/cuda/vectors.cuh"

namespace hax::ops::cuda {

// Four neighbours of a matrix; `whole`: they lie at a multiple of their size.
template <class W>
__device__ __forceinline__ Packed<W, 4> load_four_of(const W* from, bool whole) {
  if (whole) return load_packed<4>(from);
  float each[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) each[i] = to_float(from[i]);
  Packed<W, 4> four;
  four.set(each);
  return four;
}

// Two neighbours as a register of an operand; `whole` as above.
template <class S>
__device__ __forceinline__ uint32_t load_two(const S* from, bool whole) {
  if (whole) {
    const auto two = load_packed<2>(from);
    return pack(two.get(0), two.get(1));
  }
  return pack(to_float(from[0]), to_float(from[1]));
}

// Weights of D = 2 d features in shared memory.
template <int D>
struct alignas(16) ScoreTiles {
  static constexpr int kPitch = D + 8;
  bf16 matrices[2 * D * kPitch];  // w1, w2
  float b1[D], b2[D], w3[D];
};

// A block's weights on their way to shared memory: what a thread loads together it stores together.
template <int D, int THREADS, class W>
class ScoreLoads {
  static constexpr int kMatrix = D * D / 4, kAll = 2 * kMatrix, kEach = (kAll + THREADS - 1) / THREADS;
  static constexpr int kTogether = kEach < 8 ? kEach : 8, kRounds = kEach / kTogether;
  static_assert(kEach % kTogether == 0 && D <= THREADS);

 public:
  // `whole`: the matrices lie at multiples of four of their elements.
  __device__ __forceinline__ void start(const ScoreWeights<W>& weights, bool whole) {
    load(0, weights, whole);
    if (threadIdx.x < D) {
      vectors_[0] = to_float(weights.b1[threadIdx.x]);
      vectors_[1] = to_float(weights.b2[threadIdx.x]);
      vectors_[2] = to_float(weights.w3[threadIdx.x]);
    }
  }
  // The block is to be synchronised behind.
  __device__ __forceinline__ void finish(ScoreTiles<D>& to, const ScoreWeights<W>& weights, bool whole) {
    store(0, to);
    for (int round = 1; round < kRounds; ++round) {
      load(round, weights, whole);
      store(round, to);
    }
    if (threadIdx.x < D) {
      to.b1[threadIdx.x] = vectors_[0];
      to.b2[threadIdx.x] = vectors_[1];
      to.w3[threadIdx.x] = vectors_[2];
    }
  }

 private:
  __device__ __forceinline__ int place(int round, int k) const {
    return (round * kTogether + k) * THREADS + static_cast<int>(threadIdx.x);
  }
  __device__ __forceinline__ void load(int round, const ScoreWeights<W>& weights, bool whole) {
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const int i = place(round, k);
      if (i < kAll)
        four_[k] = load_four_of(i < kMatrix ? weights.w1 + 4 * i : weights.w2 + 4 * (i - kMatrix), whole);
    }
  }
  __device__ __forceinline__ void store(int round, ScoreTiles<D>& to) const {
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const int i = place(round, k);
      float x[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) x[e] = four_[k].get(e);
      if (i < kAll) store_vector<4>(to.matrices + 4 * i / D * ScoreTiles<D>::kPitch + 4 * i % D, x);
    }
  }
  Packed<W, 4> four_[kTogether];
  float vectors_[3];
};

// h (16 x D, as A fragments) of ReLU(in W^T + b).
template <int D>
__device__ __forceinline__ void hidden(uint32_t (&in)[D / 16][4], const bf16* W, const float* b, int lane) {
  uint32_t out[D / 16][4];
#pragma unroll
  for (int n = 0; n < D / 16; ++n) {
    float low[4], high[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      low[e] = b[n * 16 + lane % 4 * 2 + e % 2];
      high[e] = b[n * 16 + 8 + lane % 4 * 2 + e % 2];
    }
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t w[4];
      load_b(w, W + n * 16 * (D + 8) + k * 16, D + 8, lane);
      mma(low, in[k], w[0], w[1]);
      mma(high, in[k], w[2], w[3]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      low[e] = fmaxf(low[e], 0.0f);
      high[e] = fmaxf(high[e], 0.0f);
    }
    out[n][0] = pack(low[0], low[1]);
    out[n][1] = pack(low[2], low[3]);
    out[n][2] = pack(high[0], high[1]);
    out[n][3] = pack(high[2], high[3]);
  }
#pragma unroll
  for (int n = 0; n < D / 16; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) in[n][e] = out[n][e];
  }
}

// The scores, but for b3, of 16 rows whose features are `in` (A fragments; overwritten): of row lane / 4 + 8
// h in score[h].
template <int D>
__device__ __forceinline__ void score_rows(float (&score)[2], uint32_t (&in)[D / 16][4],
                                           const ScoreTiles<D>& tiles, int lane) {
  hidden<D>(in, tiles.matrices, tiles.b1, lane);
  hidden<D>(in, tiles.matrices + D * ScoreTiles<D>::kPitch, tiles.b2, lane);
  score[0] = score[1] = 0.0f;
#pragma unroll
  for (int n = 0; n < D / 16; ++n) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const __nv_bfloat162 pair = *reinterpret_cast<const __nv_bfloat162*>(&in[n][r]);
      const float* w = tiles.w3 + n * 16 + r / 2 * 8 + lane % 4 * 2;
      score[r % 2] += __low2float(pair) * w[0] + __high2float(pair) * w[1];
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    score[h] += __shfl_xor_sync(0xffffffffu, score[h], 1);
    score[h] += __shfl_xor_sync(0xffffffffu, score[h], 2);
  }
}

template <class T>
bool at_multiple_of(int n, const T* data, int64_t stride) {
  return stride % n == 0 && reinterpret_cast<uintptr_t>(data) % (n * sizeof(T)) == 0;
}
template <class W>
bool has_whole_matrices(const ScoreWeights<W>& weights) {
  return at_multiple_of(4, weights.w1, 4) && at_multiple_of(4, weights.w2, 4);
}

}  // namespace hax::ops::cuda
