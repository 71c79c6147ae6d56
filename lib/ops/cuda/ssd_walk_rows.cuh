// A step's sums by row in the walk from the end, and the gradients of step sizes and of A, D and dt_bias that
// follow from them (the equations are ssd_walk_backward.cu's).
#pragma once

#include "lib/ops/cuda/ssd_walk.cuh"
#include "lib/ops/cuda/warp.cuh"

namespace hax::ops::cuda {

// Of a warp's 16 rows; row sums are own_i, leaving_j, d(dt x)_j . x_j and dy_j . x_j.
struct RowSums {
  float4 sums[kStepRows];
  float pairs[kStepRows];  // sum over i >= t > j of (dM o M)_ij
};

// Lane t of a quad returns the quad's sum of values[t].
__device__ __forceinline__ float quad_sums(const float (&values)[4], int lane) {
  const bool upper = lane & 2, odd = lane & 1;
  const float a =
      (upper ? values[2] : values[0]) + __shfl_xor_sync(0xffffffffu, upper ? values[0] : values[2], 2);
  const float b =
      (upper ? values[3] : values[1]) + __shfl_xor_sync(0xffffffffu, upper ? values[1] : values[3], 2);
  return (odd ? b : a) + __shfl_xor_sync(0xffffffffu, odd ? a : b, 1);
}

// Sums four values over the lanes of the same t; lanes with an even g hold that of value g / 4 * 2 + g / 2
// % 2.
__device__ __forceinline__ float column_sum(const float (&values)[4], int lane) {
  const bool upper = lane & 16, second = lane & 8;
  const float a =
      (upper ? values[2] : values[0]) + __shfl_xor_sync(0xffffffffu, upper ? values[0] : values[2], 16);
  const float b =
      (upper ? values[3] : values[1]) + __shfl_xor_sync(0xffffffffu, upper ? values[1] : values[3], 16);
  const float sum = (second ? b : a) + __shfl_xor_sync(0xffffffffu, second ? a : b, 8);
  return sum + __shfl_xor_sync(0xffffffffu, sum, 4);
}

// E (row j, column i) holds the pairs j < i of a step; lanes with an even g return the sum over i >= t > j of
// the column t that column_sum names. Summed over i by a product with ones, before what does not belong to
// the sum could cancel.
__device__ __forceinline__ float straddling_pairs(const WidePair& E, int lane) {
  const int g = lane / 4, t = lane % 4;
  const uint32_t one = 0x3f80, ones = one << 16 | one;
  const uint32_t triangle = (2 * t >= g ? one : 0) | (2 * t + 1 >= g ? one << 16 : 0);
  float sums[2][4] = {};
  mma(sums[0], E, triangle, ones);
  mma(sums[1], E, 0, triangle);
  float by_column[4];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    by_column[e] = g < 2 * t + e ? sums[0][e] : 0.0f;
    by_column[2 + e] = sums[1][e] + (g < 2 * t + e ? sums[1][2 + e] : 0.0f);
  }
  return column_sum(by_column, lane);
}

__device__ __forceinline__ float low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// Products of an accumulator's row r (of g, g + 8) with the same places of a tile loaded by load_a.
__device__ __forceinline__ float dot_row(const float (&left)[4], const float (&right)[4],
                                         const uint32_t (&tile)[4], int r) {
  return left[2 * r] * low(tile[r]) + left[2 * r + 1] * high(tile[r]) + right[2 * r] * low(tile[2 + r]) +
         right[2 * r + 1] * high(tile[2 + r]);
}

// What a head's gradients sum up to, by the lanes of the rows of its four warps.
struct HeadSums {
  float dA = 0.0f, dD = 0.0f, dbias = 0.0f;
};

// Gradients of the step sizes of a warp's rows, by lanes 0 .. 15; returns ddt. through: e_q <S, dS>.
__device__ __forceinline__ float finish_rows(const RowSums& rows, const StepDecays& decay, float A,
                                             float through, HeadSums& sums, int lane) {
  const int row = lane % kStepRows;
  // Lanes 0 .. 15 sum own_i from row i on, the others leaving_j up to row 31 - lane.
  float sum = lane < kStepRows ? rows.sums[row].x : rows.sums[kStepRows - 1 - row].y;
#pragma unroll
  for (int step = 1; step < kStepRows; step *= 2) {
    const float other = __shfl_down_sync(0xffffffffu, sum, step, kStepRows);
    if (row + step < kStepRows) sum += other;
  }
  const float before = __shfl_sync(0xffffffffu, sum, (32 - row) % 32);
  const float da = sum + (row > 0 ? before : 0.0f) + rows.pairs[row] + through;
  const float gradient = (da * A + rows.sums[row].z) * softplus_slope_fast(decay.dt);
  sums.dA += da * decay.dt;
  sums.dD += rows.sums[row].w;
  sums.dbias += gradient;
  return gradient;
}

}  // namespace hax::ops::cuda
