// What enters a chunk from its neighbours. What every chunk adds to the state behind it is summed first, and
// then carried along each sequence from chunk to chunk; the gradient of the state goes the same way from the
// end to the beginning.
#pragma once

#include "lib/ops/cuda/selective_scan_chunk.cuh"

namespace hax::ops::cuda {

// What steps add to a state, or to its gradient, and the sum of their dt: states (chunks, channels, width),
// total (chunks, channels).
struct Added {
  float *states, *total;
};

// All blocks of the paper's shape are on the device together.
template <class T, int S>
constexpr int kAddedBlocks = S > 4            ? 4
                             : sizeof(T) == 2 ? 8
                                              : 5;

// Forward: what a chunk adds to the state that leaves it, its tail's steps from a zero state. Backward: what
// it adds to the gradient of the state that enters it, by the steps that continue the sequence of the chunk
// before; and `middle`, what its second tile adds to that of the state that enters the tile. source: u, or
// dy.
template <class T, int S, bool kBackward>
__global__ void __launch_bounds__(kThreads, kAddedBlocks<T, S>)
    added_kernel(ScanPlan plan, ScanInput<T> in, Rows<const T> source, Added added, Added middle) {
  // Rows of one tile. Of two channels and a row: dt, and the weight dt u or dy of the row of B or C.
  __shared__ __align__(16) float4 steps[kTile * kChannels / 2];
  __shared__ __align__(16) float weighed[kTile * kLanes * S];
  const ChunkSpan span = chunk_span(plan.layout, blockIdx.x);
  const int begin = span.tail(), entered = span.entered(), entered_middle = span.entered(kTile);
  if (kBackward ? entered + entered_middle == 0 : begin == kChunk) return;
  const int first = blockIdx.y * kChannels;
  const TilePairs<kTile, kChannels / 2> pairs(threadIdx.x);
  const TilePairs<kTile, 2 * S> states(threadIdx.x);
  const PairLane own;
  const int channel = first + 2 * own.pair;
  float rate[2][S], h[2][S] = {}, sum[2] = {};
#pragma unroll
  for (int m = 0; m < 2; ++m) load_rates(rate[m], in.A, plan, channel + m, own.q);
  const auto step = [&](int t) {
    float w[S];
    load(w, weighed + (t * kLanes + own.q) * S);
    const float4 both = steps[t * (kChannels / 2) + own.pair];
    const float dt[2] = {both.x, both.z}, weight[2] = {both.y, both.w};
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      sum[m] += dt[m];
#pragma unroll
      for (int s = 0; s < S; ++s) {
        const float decay = exp2_fast(dt[m] * rate[m][s]), own_weight = weight[m] * w[s];
        h[m][s] = kBackward ? decay * (h[m][s] + own_weight) : decay * h[m][s] + own_weight;
      }
    }
  };
  const auto leave = [&](const Added& to) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      if (channel + m >= plan.channels) continue;
      const int64_t slot = static_cast<int64_t>(blockIdx.x) * plan.channels + channel + m;
      store(to.states + slot * plan.width() + own.q * S, h[m]);
      // Read where the steps are all of one sequence.
      if (own.q == 0) to.total[slot] = sum[m];
    }
  };
  constexpr int kTiles = kChunk / kTile;
#pragma unroll 1
  for (int i = 0; i < kTiles; ++i) {
    const int row = (kBackward ? kTiles - 1 - i : i) * kTile;
    const int from = kBackward ? 0 : max(begin - row, 0), to = min(!kBackward ? kTile
                                                                   : row > 0  ? entered_middle
                                                                              : entered,
                                                                   kTile);
    if (from >= to) continue;
    {
      const float2 bias = pairs.bias(in.dt_bias, first, plan.channels);
      Pair<T> x[pairs.kCount], w[pairs.kCount], rows[states.kCount];
      pairs.load(x, in.delta, span.begin + row, from, to, first, plan.channels, plan.paired);
      pairs.load(w, source, span.begin + row, from, to, first, plan.channels, plan.paired);
      states.load(rows, kBackward ? in.C : in.B, span.begin + row, from, to, 0, plan.N, plan.paired);
      __syncthreads();
#pragma unroll
      for (int j = 0; j < pairs.kCount; ++j) {
        const int t = pairs.t + j * pairs.kStep;
        const float2 z = to_floats(x[j]), v = to_floats(w[j]);
        // A row outside leaves the state as it is.
        const bool real = t >= from && t < to;
        const float dt0 = real ? softplus_by_series(z.x + bias.x) : 0.0f,
                    dt1 = real ? softplus_by_series(z.y + bias.y) : 0.0f;
        steps[t * (kChannels / 2) + pairs.p] =
            make_float4(dt0, kBackward ? v.x : dt0 * v.x, dt1, kBackward ? v.y : dt1 * v.y);
      }
      states.store(weighed, rows);
    }
    __syncthreads();
    if (kBackward) {
#pragma unroll 1
      for (int t0 = (to - 1) / 4 * 4; t0 >= 0; t0 -= 4) {
#pragma unroll
        for (int k = 3; k >= 0; --k) step(t0 + k);
      }
    } else {
#pragma unroll 1
      for (int t0 = from / 4 * 4; t0 < kTile; t0 += 4) {
#pragma unroll
        for (int k = 0; k < 4; ++k) step(t0 + k);
      }
    }
    if (!kBackward || row == 0) continue;
    leave(middle);
    // The sequence does not reach into this tile from the chunk before.
    if (entered <= row) {
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        sum[m] = 0.0f;
#pragma unroll
        for (int s = 0; s < S; ++s) h[m][s] = 0.0f;
      }
    }
  }
  if (!kBackward || entered > 0) leave(added);
}

// Chunks whose loads a thread has on their way together: many where blocks are few, and otherwise as many as
// let four blocks be on a multiprocessor.
constexpr int kTogether = 20, kTogetherOfFew = 48;

// One thread carries one state of a sequence from chunk to chunk: to the state that enters each of them
// (a kept one), or the gradient of the state that leaves it (of every chunk).
template <bool kBackward, int kLoads>
__global__ void __launch_bounds__(256, kLoads < kTogetherOfFew ? 4 : 1)
    carry_kernel(ScanPlan plan, const float* __restrict__ A, const float* __restrict__ added,
                 const float* __restrict__ total, float* __restrict__ states) {
  const int64_t element = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x, all = plan.state_floats();
  if (element >= all) return;
  const int channel = static_cast<int>(element / plan.width()), n = static_cast<int>(element % plan.width());
  const float rate = n < plan.N ? A[channel * plan.N + n] * kLog2E : 0.0f;
  const int64_t first = plan.layout.cu_seqlens[blockIdx.y] / kChunk;
  const int64_t last = (plan.layout.cu_seqlens[blockIdx.y + 1] - 1) / kChunk;
  const int64_t steps = last - first;
  const auto chunk = [&](int64_t i) { return kBackward ? last - i : first + i; };
  float state = 0.0f;
  for (int64_t i0 = 0; i0 < steps; i0 += kLoads) {
    float addend[kLoads], sum[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      if (i0 + k >= steps) continue;
      addend[k] = added[chunk(i0 + k) * all + element];
      // Not written of a sequence's first chunk, and not needed.
      sum[k] = i0 + k > 0 ? total[chunk(i0 + k) * plan.channels + channel] : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      if (i0 + k >= steps) continue;
      const int64_t c = chunk(i0 + k);
      state = exp2_fast(rate * sum[k]) * state + addend[k];
      states[(kBackward ? c - 1 : (c + 1) * (kChunk / kKept)) * all + element] = state;
    }
  }
}

// Floats of added and total.
inline int64_t carry_floats(const ScanPlan& plan) {
  return plan.chunks * (plan.state_floats() + plan.channels);
}

// states: what carry_kernel says. scratch: carry_floats.
template <int S, bool kBackward, class T>
void carry_states(const ScanPlan& plan, const ScanInput<T>& in, Rows<const T> source, float* states,
                  float* scratch, cudaStream_t stream, Added middle = {}) {
  const Added added{scratch, scratch + plan.chunks * plan.state_floats()};
  added_kernel<T, S, kBackward><<<plan.grid(), kThreads, 0, stream>>>(plan, in, source, added, middle);
  check_launch(kBackward ? "scan_added_gradient" : "scan_added", plan.text());
  const dim3 grid(static_cast<unsigned>(ceil_div(plan.state_floats(), 256)),
                  static_cast<unsigned>(plan.layout.batch));
  const bool few = static_cast<int64_t>(grid.x) * grid.y <= multiprocessors();
  const auto carry = few ? carry_kernel<kBackward, kTogetherOfFew> : carry_kernel<kBackward, kTogether>;
  carry<<<grid, 256, 0, stream>>>(plan, in.A, added.states, added.total, states);
  check_launch(kBackward ? "scan_carry_gradient" : "scan_carry", plan.text());
}

}  // namespace hax::ops::cuda
