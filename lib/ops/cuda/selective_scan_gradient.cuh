// The gradients of tiles, which teams of blocks share: a block for every kChannels channels. A tile is walked
// from its end to its beginning, a few steps at a time: forward, from the last kept state in front of them,
// and then back.
#pragma once

#include "lib/ops/cuda/channel_products.cuh"
#include "lib/ops/cuda/selective_scan_added.cuh"

namespace hax::ops::cuda {

constexpr int kBlock = 4;  // steps that are on chip together; one for each lane of a channel
static_assert(kKept % kBlock == 0 && kTile % kKept == 0);
constexpr int kPairs = kChannels / 2;
constexpr int kTilesOfChunk = kChunk / kTile;
static_assert(kTilesOfChunk == 2);
constexpr int kWarps = kThreads / 32;

template <class T, int S>
struct GradientTiles {
  static constexpr int kWidth = kLanes * S;
  float4 steps[kTile * kPairs];  // of two channels: dt, dt u, dt, dt u
  float B[kTile * kWidth], C[kTile * kWidth];
  float restarts[kTile];
  // What a warp leaves of a block's steps: dB and dC summed over the eight channels of each of its halves, as
  // the products leave them (kind, product, half, q, pair of steps, state, step).
  static constexpr int kProducts = (S + 1) / 2, kOfHalf = kLanes * 2 * 4;
  float keys[kTile / kBlock][kWarps][2 * kProducts * 2 * kOfHalf];
  Pair<T> u[kTile * kPairs];      // then du
  Pair<T> delta[kTile * kPairs];  // then ddelta
  Pair<T> dy[kTile * kPairs];
};

template <class T>
struct GradientOutput {
  Rows<const T> dy;
  const float *states, *dstates;  // the kept ones, and their gradients at the end of chunks
  Added middle;                   // to the gradients in the middle of chunks, from the second halves
  T *du, *ddelta;
  float* keys;        // (blocks, rows, 2, width): dB and dC, summed over a block's channels; rows in use only
  float* by_channel;  // (teams, N + 2, channels): dA, dD and ddt_bias of a team's tiles
};

// The rows of a tile on their way to shared memory; zeros from `used` on, which leave states and gradients as
// they are.
template <class T, int S>
struct TileRows {
  using OfChannels = TilePairs<kTile, kPairs>;
  using OfStates = TilePairs<kTile, 2 * S>;
  Pair<T> u[OfChannels::kCount], delta[OfChannels::kCount], up[OfChannels::kCount];
  Pair<T> B[OfStates::kCount], C[OfStates::kCount];

  __device__ __forceinline__ void load(const ScanPlan& plan, const ScanInput<T>& in, Rows<const T> dy,
                                       int64_t row, int used, int first) {
    const OfChannels pairs(threadIdx.x);
    const OfStates of_states(threadIdx.x);
    pairs.load(u, in.u, row, 0, used, first, plan.channels, plan.paired);
    pairs.load(delta, in.delta, row, 0, used, first, plan.channels, plan.paired);
    pairs.load(up, dy, row, 0, used, first, plan.channels, plan.paired);
    of_states.load(B, in.B, row, 0, used, 0, plan.N, plan.paired);
    of_states.load(C, in.C, row, 0, used, 0, plan.N, plan.paired);
  }

  __device__ __forceinline__ void store(GradientTiles<T, S>& tiles, const ScanPlan& plan,
                                        const float* dt_bias, int used, uint32_t starts, int first) const {
    const OfChannels pairs(threadIdx.x);
    const OfStates of_states(threadIdx.x);
    const float2 bias = pairs.bias(dt_bias, first, plan.channels);
#pragma unroll
    for (int i = 0; i < OfChannels::kCount; ++i) {
      const int t = pairs.t + i * OfChannels::kStep, at = t * kPairs + pairs.p;
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
};

// keys (used, 2, width): dB and dC, summed over what warps have left. A thread has two steps of two states.
template <class T, int S>
__device__ __forceinline__ void sum_keys(const GradientTiles<T, S>& tiles, float* keys, int used) {
  using Tiles = GradientTiles<T, S>;
  constexpr int kLeft = 2 * Tiles::kProducts * kLanes * 2;  // of a block's steps
#pragma unroll
  for (int i = threadIdx.x; i < kTile / kBlock * kLeft; i += kThreads) {
    const int block = i / kLeft, place = i % (kLanes * 2), product = i / (kLanes * 2) % Tiles::kProducts;
    const int kind = i / (kLanes * 2 * Tiles::kProducts) % 2, t = block * kBlock + place % 2 * 2;
    if (t >= used) break;
    float sum[4] = {};
#pragma unroll
    for (int part = 0; part < 2 * kWarps; ++part) {
      const int at = ((kind * Tiles::kProducts + product) * 2 + part % 2) * Tiles::kOfHalf + place * 4;
      float of_part[4];
      load(of_part, &tiles.keys[block][part / 2][at]);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] += of_part[k];
    }
    float* to = keys + (t * 2 + kind) * Tiles::kWidth + place / 2 * S + product * 2;
#pragma unroll
    for (int j = 0; j < 2; ++j, to += 2 * Tiles::kWidth) {
      if (t + j >= used) break;
      if constexpr (S > 1)
        __stcg(reinterpret_cast<float2*>(to), make_float2(sum[j], sum[2 + j]));
      else
        __stcg(to, sum[j]);
    }
  }
}

template <class T, int S>
__global__ void __launch_bounds__(kThreads, S <= 4 ? 3 : 1)
    gradient_kernel(ScanPlan plan, ScanInput<T> in, GradientOutput<T> out) {
  extern __shared__ uint4 shared[];
  auto& tiles = *reinterpret_cast<GradientTiles<T, S>*>(shared);
  using Tiles = GradientTiles<T, S>;
  constexpr int kWidth = Tiles::kWidth, kProducts = Tiles::kProducts;
  const int first = blockIdx.y * kChannels;
  const PairLane own;
  const int channel = first + 2 * own.pair, q = own.q;
  const bool there[2] = {channel < plan.channels, channel + 1 < plan.channels};
  float rate[2][S], dA[2][S] = {}, D[2], dD[2] = {}, dbias[2] = {};
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    load_rates(rate[m], in.A, plan, channel + m, q);
    D[m] = there[m] ? in.D[channel + m] : 0.0f;
  }
  const float bias[2] = {there[0] ? in.dt_bias[channel] : 0.0f, there[1] ? in.dt_bias[channel + 1] : 0.0f};

  const TilePairs<kTile, kPairs> pairs(threadIdx.x);
  const int64_t in_use = plan.layout.cu_seqlens[plan.layout.batch];
  const auto used_of = [&](int64_t tile) {
    return static_cast<int>(
        max(min(in_use - tile * kTile, static_cast<int64_t>(kTile)), static_cast<int64_t>(0)));
  };
  const auto rows_of = [&](int64_t tile) {
    return static_cast<int>(min(plan.layout.rows - tile * kTile, static_cast<int64_t>(kTile)));
  };
  int64_t tile = blockIdx.x;
  TileRows<T, S> coming;
  coming.load(plan, in, out.dy, tile * kTile, used_of(tile), first);
  ChunkSpan span = chunk_span(plan.layout, tile / kTilesOfChunk);
#pragma unroll 1
  while (used_of(tile) > 0) {
    const int64_t row = tile * kTile;
    const int used = used_of(tile), in_chunk = static_cast<int>(row - span.begin);
    const uint32_t starts = static_cast<uint32_t>(span.starts >> in_chunk);
    float g[2][S];
    {
      // What comes from behind the chunk, and from the chunk's rows behind the tile.
      const int behind = in_chunk + kTile;
      const bool last = behind == kChunk;
      const bool leaves = span.leaves && (last || span.starts >> behind == 0);
      const bool goes_on = !last && span.entered(behind) > 0;
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const int64_t slot = tile / kTilesOfChunk * plan.channels + channel + m;
#pragma unroll
        for (int s = 0; s < S; ++s) g[m][s] = 0.0f;
        if (there[m] && leaves) load(g[m], out.dstates + slot * kWidth + q * S);
        if (!there[m] || !goes_on) continue;
        float added[S];
        load(added, out.middle.states + slot * kWidth + q * S);
        const float total = out.middle.total[slot];
#pragma unroll
        for (int s = 0; s < S; ++s) g[m][s] = exp2_fast(rate[m][s] * total) * g[m][s] + added[s];
      }
    }
    // The state in front of row t, of which none enters a sequence.
    const auto load_state = [&](float(&to)[2][S], int t) {
      const float* from = out.states + ((row + t) / kKept * plan.channels + channel) * kWidth + q * S;
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int s = 0; s < S; ++s) to[m][s] = 0.0f;
        if (there[m] && !(starts >> t & 1)) load(to[m], from + m * kWidth);
      }
    };
    int kept = (used - 1) / kKept * kKept;
    float next[2][S];
    load_state(next, kept);
    coming.store(tiles, plan, in.dt_bias, used, starts, first);
    __syncthreads();

    // Step t's decays, 0 at a sequence's start; what they leave of the state in front, h, which becomes that
    // behind.
    const auto advance = [&](float(&h)[2][S], float(&decay)[2][S], float(&left)[2][S], int t, float none) {
      float b[S];
      load(b, tiles.B + (t * kLanes + q) * S);
      const float4 step = tiles.steps[t * kPairs + own.pair];
      const float dt[2] = {step.x, step.z}, scale[2] = {step.y, step.w};
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int s = 0; s < S; ++s) {
          decay[m][s] = exp2_fast(dt[m] * rate[m][s] + none);
          left[m][s] = decay[m][s] * h[m][s];
          h[m][s] = left[m][s] + scale[m] * b[s];
        }
      }
    };
    // Column half * 4 + k of the products is step k of the half's channels: they lie along the contracted
    // dimension, and rows are states, of both halves. (Where those differ, the products are not used.)
    const auto add_step = [&](float(&sums)[kProducts][4], const float(&of)[2][S], int k, float w0, float w1) {
      const float weights[2] = {q == k ? w0 : 0.0f, q == k ? w1 : 0.0f};
#pragma unroll
      for (int i = 0; i < kProducts; ++i) {
        const int s = 2 * i;
        if constexpr (S > 1)
          add_product<T>(sums[i], {of[0][s], of[0][s + 1], of[1][s], of[1][s + 1]}, weights);
        else
          add_product<T>(sums[i], {of[0][s], 0.0f, of[1][s], 0.0f}, weights);
      }
    };
    const int lane = threadIdx.x % 32;
    // Columns 2 (lane % 4) and the next one are steps of half lane % 4 / 2.
    const auto leave = [&](float* keys, int kind, const float(&sums)[kProducts][4]) {
      if (lane % 4 / 2 != own.half) return;
#pragma unroll
      for (int i = 0; i < kProducts; ++i) {
        store(keys + ((kind * kProducts + i) * 2 + own.half) * Tiles::kOfHalf + (q * 2 + lane % 2) * 4,
              sums[i]);
      }
    };
#pragma unroll 1
    for (int end = (used + kBlock - 1) / kBlock * kBlock; end > 0; end = kept, kept -= kKept) {
      float entering[2][S];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int s = 0; s < S; ++s) entering[m][s] = next[m][s];
      }
      if (kept > 0) load_state(next, kept - kKept);
#pragma unroll 1
      for (int t0 = end - kBlock; t0 >= kept; t0 -= kBlock) {
        float h[2][S], decay[kBlock][2][S], left[kBlock][2][S];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
          for (int s = 0; s < S; ++s) h[m][s] = entering[m][s];
        }
        float none[kBlock];
#pragma unroll 1
        for (int t = kept; t < t0; t += kBlock) {
          load(none, tiles.restarts + t);
#pragma unroll
          for (int k = 0; k < kBlock; ++k) advance(h, decay[k], left[k], t + k, none[k]);
        }
        float* keys = tiles.keys[t0 / kBlock][own.warp];
        load(none, tiles.restarts + t0);
        {
          float dC[kProducts][4] = {};
#pragma unroll
          for (int k = 0; k < kBlock; ++k) {
            advance(h, decay[k], left[k], t0 + k, none[k]);
            const float2 up = to_floats(tiles.dy[(t0 + k) * kPairs + own.pair]);
            add_step(dC, h, k, up.x, up.y);
          }
          leave(keys, 1, dC);
        }
        float of_decay[2][kBlock], of_input[2][kBlock];
        float dB[kProducts][4] = {};
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
          add_step(dB, g, k, rounded_factor<T>(step.y), rounded_factor<T>(step.w));
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            float rates = 0.0f, input = 0.0f;
#pragma unroll
            for (int s = 0; s < S; ++s) {
              input += g[m][s] * b[s];
              const float exponent = g[m][s] * left[k][m][s];  // gradient of dt A
              rates += exponent * rate[m][s];
              dA[m][s] += exponent * dt[m];
              g[m][s] *= decay[k][m][s];
            }
            of_decay[m][k] = rates;
            of_input[m][k] = input;
          }
        }
        leave(keys, 0, dB);
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
      }
    }
    __syncthreads();
    const int rows = rows_of(tile);
    tile += gridDim.x;
    coming.load(plan, in, out.dy, tile * kTile, used_of(tile), first);
    span = chunk_span(plan.layout, tile / kTilesOfChunk);
    sum_keys(tiles, out.keys + (blockIdx.y * plan.layout.rows + row) * 2 * kWidth, used);
    pairs.store(out.du, row, 0, rows, first, plan.channels, plan.paired, tiles.u);
    pairs.store(out.ddelta, row, 0, rows, first, plan.channels, plan.paired, tiles.delta);
    __syncthreads();
  }
  for (; tile * kTile < plan.layout.rows; tile += gridDim.x) {
    pairs.clear(out.du, tile * kTile, rows_of(tile), first, plan.channels);
    pairs.clear(out.ddelta, tile * kTile, rows_of(tile), first, plan.channels);
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
