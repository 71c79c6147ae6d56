// What enters a chunk from its neighbours. What every chunk adds to the state behind it is summed first, and
// then carried along each sequence from chunk to chunk; the gradient of the state goes the same way from the
// end to the beginning.
#pragma once

#include "lib/ops/cuda/selective_scan_chunk.cuh"

namespace hax::ops::cuda {

// Forward: what a chunk adds to the state that leaves it, its tail's steps from a zero state. Backward: what
// it adds to the gradient of the state that enters it, by the steps that continue the sequence of the chunk
// before. total: the sum of dt over those steps. source: u, or dy. added (chunks, channels, width), total
// (chunks, channels).
template <class T, int S, bool kBackward>
__global__ void __launch_bounds__(kThreads)
    added_kernel(ScanPlan plan, ScanInput<T> in, Rows<const T> source, float* __restrict__ added,
                 float* __restrict__ total) {
  // Of two channels and a row: dt, and the weight dt u or dy of the row of B or C.
  __shared__ __align__(16) float4 steps[kChunk * kChannels / 2];
  __shared__ __align__(16) float weighed[kChunk * kLanes * S];
  const ChunkSpan span = chunk_span(plan.layout, blockIdx.x);
  const int begin = kBackward ? 0 : span.tail(), end = kBackward ? span.entered() : kChunk;
  if (begin >= end) return;
  const int first = blockIdx.y * kChannels;
  {
    const TilePairs<kTile, kChannels / 2> pairs(threadIdx.x);
    const float2 bias = pairs.bias(in.dt_bias, first, plan.channels);
    Pair<T> x[pairs.kCount], w[pairs.kCount];
#pragma unroll 1
    for (int row = 0; row < kChunk; row += kTile) {
      pairs.load(x, in.delta, span.begin + row, begin - row, end - row, first, plan.channels, plan.paired);
      pairs.load(w, source, span.begin + row, begin - row, end - row, first, plan.channels, plan.paired);
#pragma unroll
      for (int i = 0; i < pairs.kCount; ++i) {
        const int t = row + pairs.t + i * pairs.kStep;
        const float2 z = to_floats(x[i]), v = to_floats(w[i]);
        // A row outside leaves the state as it is.
        const bool real = t >= begin && t < end;
        const float dt0 = real ? softplus_by_series(z.x + bias.x) : 0.0f,
                    dt1 = real ? softplus_by_series(z.y + bias.y) : 0.0f;
        steps[t * (kChannels / 2) + pairs.p] =
            make_float4(dt0, kBackward ? v.x : dt0 * v.x, dt1, kBackward ? v.y : dt1 * v.y);
      }
    }
    const TilePairs<kChunk, 2 * S> states(threadIdx.x);
    Pair<T> rows[states.kCount];
    states.load(rows, kBackward ? in.C : in.B, span.begin, begin, end, 0, plan.N, plan.paired);
    states.store(weighed, rows);
  }
  const PairLane own;
  const int channel = first + 2 * own.pair;
  float rate[2][S], h[2][S] = {}, sum[2] = {};
#pragma unroll
  for (int m = 0; m < 2; ++m) load_rates(rate[m], in.A, plan, channel + m, own.q);
  __syncthreads();
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
  if (kBackward) {
    for (int t0 = (end - 1) / 4 * 4; t0 >= 0; t0 -= 4) {
#pragma unroll
      for (int k = 3; k >= 0; --k) step(t0 + k);
    }
  } else {
    for (int t0 = begin / 4 * 4; t0 < kChunk; t0 += 4) {
#pragma unroll
      for (int k = 0; k < 4; ++k) step(t0 + k);
    }
  }
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    if (channel + m >= plan.channels) return;
    const int64_t slot = static_cast<int64_t>(blockIdx.x) * plan.channels + channel + m;
    store(added + slot * plan.width() + own.q * S, h[m]);
    // Read where no sequence begins in the chunk, and the steps are all of its own.
    if (own.q == 0) total[slot] = sum[m];
  }
}

constexpr int kTogether = 32;  // loads that a thread has on their way

// One thread carries one state of a sequence from chunk to chunk: to the state that enters each of them
// (states, of every second tile), or the gradient of the state that leaves it (of every chunk).
template <bool kBackward>
__global__ void __launch_bounds__(256)
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
  for (int64_t i0 = 0; i0 < steps; i0 += kTogether) {
    float addend[kTogether], sum[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      if (i0 + k >= steps) continue;
      addend[k] = added[chunk(i0 + k) * all + element];
      // Not written of a sequence's first chunk, and not needed.
      sum[k] = i0 + k > 0 ? total[chunk(i0 + k) * plan.channels + channel] : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      if (i0 + k >= steps) continue;
      const int64_t c = chunk(i0 + k);
      state = exp2_fast(rate * sum[k]) * state + addend[k];
      states[(kBackward ? c - 1 : (c + 1) * (kChunk / kTile)) * all + element] = state;
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
                  float* scratch, cudaStream_t stream) {
  float *added = scratch, *total = scratch + plan.chunks * plan.state_floats();
  added_kernel<T, S, kBackward><<<plan.grid(), kThreads, 0, stream>>>(plan, in, source, added, total);
  check_launch(kBackward ? "scan_added_gradient" : "scan_added", plan.text());
  const dim3 grid(static_cast<unsigned>(ceil_div(plan.state_floats(), 256)),
                  static_cast<unsigned>(plan.layout.batch));
  carry_kernel<kBackward><<<grid, 256, 0, stream>>>(plan, in.A, added, total, states);
  check_launch(kBackward ? "scan_carry_gradient" : "scan_carry", plan.text());
}

}  // namespace hax::ops::cuda
