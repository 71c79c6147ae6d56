// A chunk's gradients. Its two tiles are walked from the last to the first: forward once, keeping the state
// every few steps, and then back, recomputing the steps between.
#pragma once

#include "lib/ops/cuda/channel_products.cuh"
#include "lib/ops/cuda/selective_scan_chunk.cuh"

namespace hax::ops::cuda {

constexpr int kBlock = 4;  // steps from one state kept on chip to the next; one for each lane of a channel
constexpr int kPairs = kChannels / 2;
constexpr int kWarps = kThreads / 32;

template <class T, int S>
struct GradientTiles {
  static constexpr int kWidth = kLanes * S;
  float4 steps[kTile * kPairs];  // of two channels: dt, dt u, dt, dt u
  float B[kTile * kWidth], C[kTile * kWidth];
  float restarts[kTile];
  // First the states in front of a block, two channels of each thread. When a warp has loaded its own, it
  // leaves there dB and dC (half, step, kind, n) summed over the eight channels of each of its halves.
  float kept[kTile / kBlock][kWarps][2 * kBlock * 2 * kWidth];
  Pair<T> u[kTile * kPairs];      // then du
  Pair<T> delta[kTile * kPairs];  // then ddelta
  Pair<T> dy[kTile * kPairs];
};

template <class T>
struct GradientOutput {
  Rows<const T> dy;
  const float *states, *dstates;  // at the beginning of tiles, and at the end of chunks
  T *du, *ddelta;
  float* keys;        // (blocks, rows, 2, width): dB and dC, summed over a block's channels; rows in use only
  float* by_channel;  // (chunks, N + 2, channels): dA, dD and ddt_bias of the chunk
};

// The rows of a tile in shared memory; zeros from `used` on, which leave states and gradients as they are.
template <class T, int S>
__device__ __forceinline__ void load_tile(GradientTiles<T, S>& tiles, const ScanPlan& plan,
                                          const ScanInput<T>& in, Rows<const T> dy, int64_t row, int used,
                                          uint32_t starts, int first) {
  const TilePairs<kTile, kPairs> pairs(threadIdx.x);
  const TilePairs<kTile, 2 * S> of_states(threadIdx.x);
  Pair<T> B[of_states.kCount], C[of_states.kCount];
  Pair<T> u[pairs.kCount], delta[pairs.kCount], up[pairs.kCount];
  pairs.load(u, in.u, row, 0, used, first, plan.channels, plan.paired);
  pairs.load(delta, in.delta, row, 0, used, first, plan.channels, plan.paired);
  pairs.load(up, dy, row, 0, used, first, plan.channels, plan.paired);
  of_states.load(B, in.B, row, 0, used, 0, plan.N, plan.paired);
  of_states.load(C, in.C, row, 0, used, 0, plan.N, plan.paired);
  const float2 bias = pairs.bias(in.dt_bias, first, plan.channels);
#pragma unroll
  for (int i = 0; i < pairs.kCount; ++i) {
    const int t = pairs.t + i * pairs.kStep, at = t * kPairs + pairs.p;
    const float2 v = to_floats(u[i]), x = to_floats(delta[i]);
    const float dt0 = t < used ? softplus_by_series(x.x + bias.x) : 0.0f,
                dt1 = t < used ? softplus_by_series(x.y + bias.y) : 0.0f;
    tiles.steps[at] = make_float4(dt0, dt0 * v.x, dt1, dt1 * v.y);
    tiles.u[at] = u[i];
    tiles.delta[at] = delta[i];
    tiles.dy[at] = up[i];
  }
  if (threadIdx.x < kTile) tiles.restarts[threadIdx.x] = restart(starts, threadIdx.x);
  of_states.store(tiles.B, B);
  of_states.store(tiles.C, C);
}

// keys (used, 2, width): dB and dC, summed over what warps have left.
template <class T, int S>
__device__ __forceinline__ void sum_keys(const GradientTiles<T, S>& tiles, float* keys, int used) {
  constexpr int kRow = 2 * kLanes * S;
#pragma unroll
  for (int i = threadIdx.x * 4; i < kTile * kRow; i += kThreads * 4) {
    const int t = i / kRow, value = i % kRow;
    if (t >= used) break;
    float sum[4] = {};
#pragma unroll
    for (int part = 0; part < 2 * kWarps; ++part) {
      float of_part[4];
      load(of_part, &tiles.kept[t / kBlock][part / 2][(part % 2 * kBlock + t % kBlock) * kRow + value]);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] += of_part[k];
    }
    store(keys + i, sum);
  }
}

template <class T, int S>
__global__ void __launch_bounds__(kThreads, S <= 4 ? 3 : 1)
    gradient_kernel(ScanPlan plan, ScanInput<T> in, GradientOutput<T> out) {
  extern __shared__ uint4 shared[];
  auto& tiles = *reinterpret_cast<GradientTiles<T, S>*>(shared);
  constexpr int kWidth = kLanes * S, kProducts = (S + 1) / 2;
  const ChunkSpan span = chunk_span(plan.layout, blockIdx.x);
  const int first = blockIdx.y * kChannels;
  const PairLane own;
  const int channel = first + 2 * own.pair, q = own.q;
  const bool there[2] = {channel < plan.channels, channel + 1 < plan.channels};
  float rate[2][S], g[2][S] = {}, dA[2][S] = {}, D[2], dD[2] = {}, dbias[2] = {};
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    load_rates(rate[m], in.A, plan, channel + m, q);
    D[m] = there[m] ? in.D[channel + m] : 0.0f;
    const int64_t slot = static_cast<int64_t>(blockIdx.x) * plan.channels + channel + m;
    if (there[m] && span.leaves) load(g[m], out.dstates + slot * kWidth + q * S);
  }
  const float bias[2] = {there[0] ? in.dt_bias[channel] : 0.0f, there[1] ? in.dt_bias[channel + 1] : 0.0f};

  const TilePairs<kTile, kPairs> pairs(threadIdx.x);
  for (int half = kChunk / kTile - 1; half >= 0; --half) {
    const int64_t row = span.begin + half * kTile;
    const int used = min(max(span.used - half * kTile, 0), kTile);
    const int rows = static_cast<int>(min(plan.layout.rows - row, static_cast<int64_t>(kTile)));
    if (used == 0) {
      pairs.clear(out.du, row, rows, first, plan.channels);
      pairs.clear(out.ddelta, row, rows, first, plan.channels);
      continue;
    }
    const uint32_t starts = static_cast<uint32_t>(span.starts >> (half * kTile));
    float h[2][S] = {};
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const int64_t slot =
          (static_cast<int64_t>(blockIdx.x) * (kChunk / kTile) + half) * plan.channels + channel + m;
      if (there[m] && !(starts & 1)) load(h[m], out.states + slot * kWidth + q * S);
    }
    load_tile(tiles, plan, in, out.dy, row, used, starts, first);
    __syncthreads();

    // From the state in front of step t to the one behind it; `decay` receives the step's decays, 0 at a
    // start.
    const auto advance = [&](const float(&from)[2][S], float(&to)[2][S], float(&decay)[2][S], int t,
                             float none) {
      float b[S];
      load(b, tiles.B + (t * kLanes + q) * S);
      const float4 step = tiles.steps[t * kPairs + own.pair];
      const float dt[2] = {step.x, step.z}, scale[2] = {step.y, step.w};
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int s = 0; s < S; ++s) {
          decay[m][s] = exp2_fast(dt[m] * rate[m][s] + none);
          to[m][s] = decay[m][s] * from[m][s] + scale[m] * b[s];
        }
      }
    };
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int block = 0; block < kTile / kBlock; ++block) {
#pragma unroll
      for (int m = 0; m < 2; ++m) store(tiles.kept[block][own.warp] + (m * 32 + lane) * S, h[m]);
      if (block + 1 == kTile / kBlock) break;
      float decay[2][S], none[kBlock];
      load(none, tiles.restarts + block * kBlock);
#pragma unroll
      for (int k = 0; k < kBlock; ++k) advance(h, h, decay, block * kBlock + k, none[k]);
    }
#pragma unroll 1
    for (int block = kTile / kBlock - 1; block >= 0; --block) {
      const int t0 = block * kBlock;
      float* kept = tiles.kept[block][own.warp];
      float behind[kBlock + 1][2][S], decay[kBlock][2][S];  // behind[k]: the state in front of step k
#pragma unroll
      for (int m = 0; m < 2; ++m) load(behind[0][m], kept + (m * 32 + lane) * S);
      float none[kBlock];
      load(none, tiles.restarts + t0);
#pragma unroll
      for (int k = 0; k < kBlock; ++k) advance(behind[k], behind[k + 1], decay[k], t0 + k, none[k]);
      float of_decay[2][kBlock], of_input[2][kBlock];
      float dB[kProducts][4] = {}, dC[kProducts][4] = {};
#pragma unroll
      for (int k = kBlock - 1; k >= 0; --k) {
        const int t = t0 + k;
        float b[S], c[S];
        load(b, tiles.B + (t * kLanes + q) * S);
        load(c, tiles.C + (t * kLanes + q) * S);
        const float4 step = tiles.steps[t * kPairs + own.pair];
        const float2 both = to_floats(tiles.dy[t * kPairs + own.pair]);
        const float dt[2] = {step.x, step.z}, up[2] = {both.x, both.y};
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
          for (int s = 0; s < S; ++s) g[m][s] += up[m] * c[s];
        }
        // Column half * 4 + k of the products is step k of the half's channels: they lie along the contracted
        // dimension, and rows are states, of both halves. (Where those differ, the products are not used.)
        const float into[2] = {q == k ? step.y : 0.0f, q == k ? step.w : 0.0f};
        const float from[2] = {q == k ? up[0] : 0.0f, q == k ? up[1] : 0.0f};
#pragma unroll
        for (int i = 0; i < kProducts; ++i) {
          const int s = 2 * i;
          const auto& h1 = behind[k + 1];
          if constexpr (S > 1) {
            add_product<T>(dB[i], {g[0][s], g[0][s + 1], g[1][s], g[1][s + 1]}, into);
            add_product<T>(dC[i], {h1[0][s], h1[0][s + 1], h1[1][s], h1[1][s + 1]}, from);
          } else {
            add_product<T>(dB[i], {g[0][s], 0.0f, g[1][s], 0.0f}, into);
            add_product<T>(dC[i], {h1[0][s], 0.0f, h1[1][s], 0.0f}, from);
          }
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          float rates = 0.0f, input = 0.0f;
#pragma unroll
          for (int s = 0; s < S; ++s) {
            input += g[m][s] * b[s];
            g[m][s] *= decay[k][m][s];
            const float exponent = g[m][s] * behind[k][m][s];  // gradient of dt A
            rates += exponent * rate[m][s];
            dA[m][s] += exponent * dt[m];
          }
          of_decay[m][k] = rates;
          of_input[m][k] = input;
        }
      }
      // Lane q: step q of the four.
      const int at = (t0 + q) * kPairs + own.pair;
      const float4 step = tiles.steps[at];
      const float2 u = to_floats(tiles.u[at]), up = to_floats(tiles.dy[at]), x = to_floats(tiles.delta[at]);
      float du[2], ddelta[2];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const float input = sum_of_lanes<4>(of_input[m], q), rates = sum_of_lanes<4>(of_decay[m], q);
        const float own_u = m ? u.y : u.x, own_up = m ? up.y : up.x;
        ddelta[m] = (rates * (1.0f / kLog2E) + own_u * input) * sigmoid((m ? x.y : x.x) + bias[m]);
        du[m] = (m ? step.z : step.x) * input + D[m] * own_up;
        dbias[m] += ddelta[m];
        dD[m] += own_up * own_u;
      }
      tiles.u[at] = to_pair<T>(du[0], du[1]);
      tiles.delta[at] = to_pair<T>(ddelta[0], ddelta[1]);
      // Columns 2 (lane % 4) and the next one are steps of half lane % 4 / 2.
      __syncwarp();
      if (lane % 4 / 2 == own.half) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float* to = kept + (own.half * kBlock + lane % 2 * 2 + j) * 2 * kWidth + q * S;
          float to_B[S], to_C[S];
#pragma unroll
          for (int s = 0; s < S; ++s) {
            to_B[s] = dB[s / 2][s % 2 * 2 + j];
            to_C[s] = dC[s / 2][s % 2 * 2 + j];
          }
          store(to, to_B);
          store(to + kWidth, to_C);
        }
      }
    }
    __syncthreads();
    sum_keys(tiles, out.keys + (blockIdx.y * plan.layout.rows + row) * 2 * kWidth, used);
    pairs.store(out.du, row, 0, rows, first, plan.channels, plan.paired, tiles.u);
    pairs.store(out.ddelta, row, 0, rows, first, plan.channels, plan.paired, tiles.delta);
    __syncthreads();
  }

  // Lanes hold different steps' parts of dD and dbias, and dA of the natural exponent.
  float* to = out.by_channel + static_cast<int64_t>(blockIdx.x) * (plan.N + 2) * plan.channels + channel;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int mask = 4; mask <= 8; mask *= 2) {
      dD[m] += __shfl_xor_sync(0xffffffffu, dD[m], mask);
      dbias[m] += __shfl_xor_sync(0xffffffffu, dbias[m], mask);
    }
    if (!there[m]) continue;
#pragma unroll
    for (int s = 0; s < S; ++s) {
      if (q * S + s < plan.N) to[(q * S + s) * plan.channels + m] = dA[m][s];
    }
    if (q == 0) {
      to[plan.N * plan.channels + m] = dD[m];
      to[(plan.N + 1) * plan.channels + m] = dbias[m];
    }
  }
}

}  // namespace hax::ops::cuda
