// Forward. Where there are enough sequences, every block walks one from its beginning to its end with the
// state on chip; elsewhere it walks one chunk, from the state that selective_scan_added.cuh brings it.
#include "lib/ops/cuda/selective_scan_added.cuh"

namespace hax::ops::cuda {
namespace {

// Rows of one tile on chip.
template <class T, int S>
struct OutputTile {
  float2 steps[kTile * kWalkChannels];  // dt and dt u
  float B[kTile * kLanes * S], C[kTile * kLanes * S];
  T u[kTile * kWalkChannels];  // then y
};

// The rows that a block walks: a sequence, or a chunk.
struct Walk {
  int64_t begin, end;
  uint64_t starts;  // of a chunk's rows that are the first of a sequence

  __device__ __forceinline__ int64_t first_tile() const { return begin / kTile; }
  __device__ __forceinline__ int64_t last_tile() const { return (end - 1) / kTile; }
  // Its rows of a tile are [from, to).
  __device__ __forceinline__ int from(int64_t tile) const {
    return static_cast<int>(max(begin - tile * kTile, static_cast<int64_t>(0)));
  }
  __device__ __forceinline__ int to(int64_t tile) const {
    return static_cast<int>(min(end - tile * kTile, static_cast<int64_t>(kTile)));
  }
};

// The half of a block's threads that brings tiles and takes their outputs away. Rows are read two tiles
// ahead.
template <class T, int S>
struct Carrier {
  static constexpr int kAcross = kWalkChannels / 2;
  using OfChannels = TilePairs<kTile, kAcross>;
  using OfStates = TilePairs<kTile, 2 * S>;
  const ScanPlan& plan;
  const Walk& walk;
  int first;
  OfChannels channels;
  OfStates states;
  float2 bias;
  Pair<T> u[OfChannels::kCount], delta[OfChannels::kCount], B[OfStates::kCount], C[OfStates::kCount];

  __device__ __forceinline__ Carrier(const ScanPlan& plan, const ScanInput<T>& in, const Walk& walk,
                                     int first, int thread)
      : plan(plan),
        walk(walk),
        first(first),
        channels(thread),
        states(thread),
        bias(channels.bias(in.dt_bias, first, plan.channels)) {}

  __device__ __forceinline__ void read(const ScanInput<T>& in, int64_t tile) {
    const int64_t row = tile * kTile;
    const int from = walk.from(tile), to = walk.to(tile);
    channels.load(u, in.u, row, from, to, first, plan.channels, plan.paired);
    channels.load(delta, in.delta, row, from, to, first, plan.channels, plan.paired);
    states.load(B, in.B, row, from, to, 0, plan.N, plan.paired);
    states.load(C, in.C, row, from, to, 0, plan.N, plan.paired);
  }
  __device__ __forceinline__ void bring(OutputTile<T, S>& to, int64_t tile) const {
#pragma unroll
    for (int i = 0; i < OfChannels::kCount; ++i) {
      const int t = channels.t + i * OfChannels::kStep, at = t * kAcross + channels.p;
      const float2 x = to_floats(delta[i]), v = to_floats(u[i]);
      // A row in front of the sequence leaves the state as it is.
      const bool real = t >= walk.from(tile);
      const float dt0 = real ? softplus_by_series(x.x + bias.x) : 0.0f,
                  dt1 = real ? softplus_by_series(x.y + bias.y) : 0.0f;
      reinterpret_cast<float4*>(to.steps)[at] = make_float4(dt0, dt0 * v.x, dt1, dt1 * v.y);
      reinterpret_cast<Pair<T>*>(to.u)[at] = u[i];
    }
    states.store(to.B, B);
    states.store(to.C, C);
  }
  __device__ __forceinline__ void take(const OutputTile<T, S>& from, T* y, int64_t tile) const {
    channels.store(y, tile * kTile, walk.from(tile), walk.to(tile), first, plan.channels, plan.paired,
                   reinterpret_cast<const Pair<T>*>(from.u));
  }
};

// Steps that are computed together: the more, the fewer waits for each other; but blocks that walk chunks are
// many, and hide waits by their number.
template <bool kWhole>
constexpr int kAhead = kWhole ? 16 : 8;

// The outputs of rows [t0, t0 + kAhead) of a tile, from the state h in front of them, which becomes that
// behind. c: the channel, q: the lane's part of its states. first_rows: bit t is set where row t starts a
// sequence.
template <bool kWhole, class T, int S>
__device__ __forceinline__ void walk_rows(OutputTile<T, S>& tile, int t0, float (&h)[S],
                                          const float (&rate)[S], float D, int c, int q,
                                          uint32_t first_rows) {
  constexpr int kRows = kAhead<kWhole>;
  float sums[kRows / kLanes][kLanes];
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    const int t = t0 + k;
    float b[S], weights[S];
    load(b, tile.B + (t * kLanes + q) * S);
    load(weights, tile.C + (t * kLanes + q) * S);
    const float2 step = tile.steps[t * kWalkChannels + c];
    const float none = kWhole ? 0.0f : restart(first_rows, t);
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < S; ++s) {
      h[s] = exp2_fast(step.x * rate[s] + none) * h[s] + step.y * b[s];
      sum += h[s] * weights[s];
    }
    sums[k / kLanes][k % kLanes] = sum;
  }
#pragma unroll
  for (int i = 0; i < kRows / kLanes; ++i) {
    const float sum = sum_of_lanes<1>(sums[i], q);
    T* own = tile.u + (t0 + i * kLanes + q) * kWalkChannels + c;
    *own = from_float<T>(sum + D * to_float(*own));
  }
}

// Zeros in the rows of y that are not in use; all blocks share them.
template <class T>
__device__ __forceinline__ void clear_unused_rows(const ScanPlan& plan, T* y) {
  const int64_t first = plan.layout.cu_seqlens[plan.layout.batch] * plan.channels;
  const int64_t all = static_cast<int64_t>(gridDim.x) * gridDim.y * blockDim.x;
  const int64_t own = (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t i = first + own; i < plan.layout.rows * plan.channels; i += all) y[i] = from_float<T>(0.0f);
}

// kWhole: block y walks sequence y; otherwise chunk y. One half of the threads walks a tile while the other
// half, in the same order of tiles, takes the one before away and brings the next. The state at the beginning
// of every tile but a block's first is left in `states` (tiles, channels, width).
template <class T, int S, bool kWhole>
__global__ void __launch_bounds__(2 * kThreads, kWhole ? 1 : 3)
    output_kernel(ScanPlan plan, ScanInput<T> in, float* __restrict__ states, T* __restrict__ y) {
  __shared__ __align__(16) OutputTile<T, S> tiles[2];
  constexpr int kRows = kAhead<kWhole>;
  const bool carries = threadIdx.x >= kThreads;
  const int thread = threadIdx.x % kThreads, c = thread / kLanes, q = thread % kLanes;
  const int first = blockIdx.x * kWalkChannels;
  const bool there = first + c < plan.channels;
  clear_unused_rows(plan, y);
  Walk walk;
  float h[S] = {};
  if (kWhole) {
    walk = {plan.layout.cu_seqlens[blockIdx.y], plan.layout.cu_seqlens[blockIdx.y + 1], 0};
  } else {
    const ChunkSpan span = chunk_span(plan.layout, blockIdx.y);
    walk = {span.begin, span.begin + span.used, span.starts};
    if (there && span.entered() > 0) {
      const int64_t slot = static_cast<int64_t>(blockIdx.y) * (kChunk / kTile) * plan.channels + first + c;
      load(h, states + slot * plan.width() + q * S);
    }
  }
  if (walk.begin >= walk.end) return;
  const int64_t first_tile = walk.first_tile(), last_tile = walk.last_tile();
  if (carries) {
    Carrier<T, S> carrier(plan, in, walk, first, thread);
    carrier.read(in, first_tile);
    carrier.bring(tiles[first_tile % 2], first_tile);
    if (first_tile < last_tile) carrier.read(in, first_tile + 1);
    __syncthreads();
    for (int64_t tile = first_tile; tile <= last_tile; ++tile) {
      auto& other = tiles[(tile + 1) % 2];
      if (tile > first_tile) carrier.take(other, y, tile - 1);
      if (tile < last_tile) carrier.bring(other, tile + 1);
      if (tile + 1 < last_tile) carrier.read(in, tile + 2);
      __syncthreads();
    }
    carrier.take(tiles[last_tile % 2], y, last_tile);
  } else {
    float rate[S];
    load_rates(rate, in.A, plan, first + c, q);
    const float D = there ? in.D[first + c] : 0.0f;
    __syncthreads();
    for (int64_t tile = first_tile; tile <= last_tile; ++tile) {
      if (tile > first_tile && there) {
        store(states + (tile * plan.channels + first + c) * plan.width() + q * S, h);
      }
      const uint32_t first_rows = static_cast<uint32_t>(walk.starts >> (tile - first_tile) * kTile);
      const int to = walk.to(tile);
#pragma unroll 1
      for (int t0 = walk.from(tile) / kRows * kRows; t0 < to; t0 += kRows) {
        walk_rows<kWhole>(tiles[tile % 2], t0, h, rate, D, c, q, first_rows);
      }
      __syncthreads();
    }
  }
}

}  // namespace

int64_t scan_state_floats(const Layout& layout, const ScanShape& shape) {
  const ScanPlan plan = scan_plan(layout, shape);
  return plan.chunks * (kChunk / kTile) * plan.state_floats();
}

int64_t scan_forward_scratch_bytes(const Layout& layout, const ScanShape& shape) {
  const ScanPlan plan = scan_plan(layout, shape);
  return plan.whole ? 0 : carry_floats(plan) * static_cast<int64_t>(sizeof(float));
}

template <class T>
void scan_forward(const Layout& layout, const ScanShape& shape, const ScanInput<T>& in, T* y, float* states,
                  void* scratch, cudaStream_t stream) {
  const ScanPlan plan = scan_plan(layout, shape, in);
  with_states(plan, [&](auto S) {
    constexpr int kStates = decltype(S)::value;
    const int64_t walks = plan.whole ? layout.batch : plan.chunks;
    const dim3 grid(static_cast<unsigned>(ceil_div(shape.channels, kWalkChannels)),
                    static_cast<unsigned>(walks));
    if (plan.whole) {
      output_kernel<T, kStates, true><<<grid, 2 * kThreads, 0, stream>>>(plan, in, states, y);
    } else {
      carry_states<kStates, false>(plan, in, in.u, states, static_cast<float*>(scratch), stream);
      output_kernel<T, kStates, false><<<grid, 2 * kThreads, 0, stream>>>(plan, in, states, y);
    }
    check_launch("scan_forward", plan.text());
  });
}

#define HAX_INSTANTIATE(T)                                                                               \
  template void scan_forward<T>(const Layout&, const ScanShape&, const ScanInput<T>&, T*, float*, void*, \
                                cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
