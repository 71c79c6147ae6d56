// A chunk's sums by row in the backward pass of the SSD scan, and the gradients of step sizes and of A, D and
// dt_bias that follow from them (the equations are ssd_backward.cu's).
#pragma once

#include "lib/ops/cuda/ssd_chunk.cuh"
#include "lib/ops/cuda/warp.cuh"

namespace hax::ops::cuda {

// What row_i and column_i are summed in. Their sums cancel but for the pairs around t, so that fp32's digits
// take more than fp32; the pairs themselves are the same numbers in both.
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, float>, double, float>;

// One head's sums by row.
template <class T>
struct RowSums {
  Sum<T> pairs[4][kChunk];  // sum_j (dM o M)_ij over the 16 rows j of each warp
  Sum<T> own[kChunk];       // e_i dy_i . (C_i S_in) - column_i
  float leaving[kChunk];
  float step[kChunk];  // d(dt x)_j . x_j
  float skip[kChunk];  // dy_j . x_j
  float through[4];    // <S_in, dS>, a part by each warp
};

// Adds four values over the lanes with the same lane % 4; lanes with an even lane / 4 return the sum of value
// (lane / 16) * 2 + lane / 8 % 2.
template <class V>
__device__ __forceinline__ V sum_of_rows(const V (&values)[4], int lane) {
  const bool upper = lane & 16, second = lane & 8;
  V a = upper ? values[2] : values[0], b = upper ? values[3] : values[1];
  a += __shfl_xor_sync(0xffffffffu, upper ? values[0] : values[2], 16);
  b += __shfl_xor_sync(0xffffffffu, upper ? values[1] : values[3], 16);
  V sum = second ? b : a;
  sum += __shfl_xor_sync(0xffffffffu, second ? a : b, 8);
  return sum + __shfl_xor_sync(0xffffffffu, sum, 4);
}

template <class V>
__device__ __forceinline__ V quad_sum(V x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Sum over p of tile (rows g, g + 8) times the same places of m.
template <class T, int P>
__device__ __forceinline__ float2 dot_rows(const float (&tile)[P / 8][4], const T* m, int stride, int g,
                                           int t) {
  float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll
  for (int n = 0; n < P / 8; ++n) {
    const T* at = m + g * stride + 8 * n + 2 * t;
    const float2 upper = load_pair(at), lower = load_pair(at + 8 * stride);
    sum.x += tile[n][0] * upper.x + tile[n][1] * upper.y;
    sum.y += tile[n][2] * lower.x + tile[n][3] * lower.y;
  }
  return sum;
}

// A thread's part of <S, dS>, of `threads` threads; both (rows, N) with N + kPad to a row.
template <class T>
__device__ __forceinline__ float dot_states(const T* S, const T* dS, int rows, int N, int thread,
                                            int threads) {
  float sum = 0.0f;
  for (int i = thread; i < rows * (N / 2); i += threads) {
    const int at = i / (N / 2) * (N + kPad) + i % (N / 2) * 2;
    const float2 a = load_pair(S + at), b = load_pair(dS + at);
    sum += a.x * b.x + a.y * b.y;
  }
  return sum;
}

// By one warp, from one head's row sums: ddt, and the chunk's parts of dA, dD and ddt_bias.
template <class T>
__device__ void finish_head(const SsdPlan& plan, const ChunkSpan& span, const RowSums<T>& sums,
                            const Decays& decays, float A, int h, T* __restrict__ ddt,
                            float* __restrict__ parts) {
  const int lane = threadIdx.x % 32, row = 2 * lane;
  // Of the rows in front; zero in front of the tail, whose rows alone it reaches.
  const float leaving = sums.leaving[row];
  float before = leaving + sums.leaving[row + 1];
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float other = __shfl_up_sync(0xffffffffu, before, step);
    if (lane >= step) before += other;
  }
  before = __shfl_up_sync(0xffffffffu, before, 1);
  if (lane == 0) before = 0.0f;
  float through_chunk = 0.0f;
  if (span.leaves && span.starts == 0) {
    const float(&part)[4] = sums.through;
    through_chunk = decays.from_start(kChunk - 1) * (((part[0] + part[1]) + part[2]) + part[3]);
  }
  Sum<T> value[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    value[r] = sums.own[row + r];
    for (int warp = 0; warp <= row / 16; ++warp) value[r] += sums.pairs[warp][row + r];
  }
  // What lies behind the pair of rows reaches its first row by this factor.
  const float second = span.starts_at(row + 1) ? 0.0f : 1.0f, next = span.starts_at(row + 2) ? 0.0f : 1.0f;
  Sum<T> sum = value[0] + second * value[1];
  float through = second * next;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const Sum<T> other = __shfl_down_sync(0xffffffffu, sum, step);
    const float other_through = __shfl_down_sync(0xffffffffu, through, step);
    if (lane + step < 32) {
      sum += through * other;
      through *= other_through;
    }
  }
  Sum<T> behind = __shfl_down_sync(0xffffffffu, sum, 1);
  if (lane == 31) behind = 0.0f;
  const float da[2] = {static_cast<float>(sum) + before + through_chunk,
                       static_cast<float>(value[1] + next * behind) + (before + leaving) + through_chunk};
  float dA = 0.0f, dbias = 0.0f;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float dt = decays.dt[row + r];
    const float gradient = (da[r] * A + sums.step[row + r]) * softplus_slope(dt);
    dA += da[r] * dt;
    dbias += gradient;
    if (span.begin + row + r < plan.layout.rows) {
      ddt[(span.begin + row + r) * plan.H + h] = from_float<T>(gradient);
    }
  }
  const float dD = warp_sum(sums.skip[row] + sums.skip[row + 1]);
  dA = warp_sum(dA);
  dbias = warp_sum(dbias);
  if (lane == 0) {
    float* part = parts + blockIdx.x * 3 * plan.H + h;
    part[0] = dA;
    part[plan.H] = dD;
    part[2 * plan.H] = dbias;
  }
}

}  // namespace hax::ops::cuda
