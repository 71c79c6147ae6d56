// The walk forward: y = (C B^T o L) (dt x) + e o (C S_in) + D x for every step of 16 rows, with S_in carried
// from step to step.
#include "lib/ops/cuda/ssd_walk.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kHeads = 2;   // of a block, at most
constexpr int kStages = 3;  // chunks in shared memory

struct Stage {
  int x, keys;  // elements
  __host__ __device__ explicit Stage(const SsdPlan& plan)
      : x(kWalkRows * (plan.heads * 16 + kPitchPad)), keys(kWalkRows * (plan.N_tile + kPitchPad)) {}
  __host__ __device__ int elements() const { return x + 2 * keys; }
};

// kWhole: P is 16 and the shape's N is N.
template <int N, bool kWhole>
__global__ void __launch_bounds__(128 * kHeads, 2)
    walk_forward_kernel(SsdPlan plan, SsdInput<bf16> in, bf16* __restrict__ y, bf16* __restrict__ states) {
  extern __shared__ uint4 shared[];
  if (const int64_t own = filler(plan, plan.layout.batch); own >= 0) {
    zero_rows(plan, own, {y, plan.H * plan.P}, plan.H * plan.P);
    return;
  }
  const WalkSpan span(plan, walked_sequence(plan.layout, place_of_rows(plan)));
  const Stage stage(plan);
  bf16* tiles = reinterpret_cast<bf16*>(shared);
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp = threadIdx.x / 32 % kSteps, head = threadIdx.x / 128, h = span.first_head + head;
  const int own_row = warp * kStepRows + lane % kStepRows;
  StepStates<N>& exchange = reinterpret_cast<StepStates<N>*>(tiles + kStages * stage.elements())[head];

  const WalkRows x_rows(in.x, span.begin, span.first_head * plan.P, plan.heads, plan.P, 16);
  const WalkRows B_rows(in.B, span.begin, span.group * plan.N, 1, plan.N, N);
  const WalkRows C_rows(in.C, span.begin, span.group * plan.N, 1, plan.N, N);
  const bool vectors = x_rows.vectors && B_rows.vectors && C_rows.vectors;
  const auto copy = [&](int chunk, auto by_vectors) {
    constexpr bool kVectors = decltype(by_vectors)::value;
    bf16* to = tiles + chunk % kStages * stage.elements();
    x_rows.copy<kVectors>(to, chunk * kWalkRows, span.length);
    B_rows.copy<kVectors>(to + stage.x, chunk * kWalkRows, span.length);
    C_rows.copy<kVectors>(to + stage.x + stage.keys, chunk * kWalkRows, span.length);
  };
  const auto fetch = [&](int chunk) {
    if (chunk < span.chunks()) {
      if (vectors)
        copy(chunk, std::true_type());
      else
        copy(chunk, std::false_type());
    }
    commit_copies();
  };
  const bf16* dt = in.dt.data + (span.begin + own_row) * in.dt.stride + h;
  const int64_t dt_stride = kWalkRows * in.dt.stride;
  const auto raw_step = [&](int chunk) {
    return chunk * kWalkRows + own_row < span.length ? dt[chunk * dt_stride] : from_float<bf16>(0.0f);
  };
  const float bias = in.dt_bias[h], rate = in.A[h] * kLog2E, D = in.D[h];
  const int64_t y_stride = static_cast<int64_t>(plan.H) * plan.P, kept = kept_stride<N>(plan);
  bf16* y_at = y + (span.begin + warp * kStepRows + g) * y_stride + h * plan.P + 2 * t;
  bf16* state_at = states + first_kept<N>(plan, span, h) + warp / 2 * 256 + lane * 8 + warp % 2 * 4;

  fetch(0);
  fetch(1);
  bf16 raw = raw_step(0);
  float state[4] = {};
  for (int chunk = 0; chunk < span.chunks(); ++chunk) {
    wait_copies<1>();
    __syncthreads();
    fetch(chunk + 2);
    const bf16* x = tiles + chunk % kStages * stage.elements() + warp * kStepRows * x_rows.pitch + head * 16;
    const bf16* B = tiles + chunk % kStages * stage.elements() + stage.x + warp * kStepRows * B_rows.pitch;
    const bf16* C = B + stage.keys;
    const int row = chunk * kWalkRows + warp * kStepRows;  // of the sequence

    StepDecays decay;
    decay.set(raw, bias, rate, chunk * kWalkRows + own_row < span.length, lane);
    raw = raw_step(chunk + 1);
    const float last = __shfl_sync(0xffffffffu, decay.log, kStepRows - 1);
    // The decay from row j on, times dt_j, is exp2(- from_j): the infinity of dt_j = 0 makes it 0.
    float log_row[2], from[4], scale[4];
    of_rows(log_row, decay.log, lane);
    of_columns(from, decay.log - log2_fast(decay.dt), lane);
#pragma unroll
    for (int e = 0; e < 4; ++e) scale[e] = exp2_fast(last - from[e]);

    uint32_t x_turned[4], C_rows_now[N / 16][4];
    load_b_trans(x_turned, x, x_rows.pitch, lane);
    float added[N / 8][4] = {}, CB[2][4] = {};
    const WidePair scaled_x = scaled_transpose(x_turned, scale);
#pragma unroll
    for (int k = 0; k < N / 16; ++k) {
      uint32_t b[4];
      load_b_trans(b, B + 16 * k, B_rows.pitch, lane);
      mma(added[2 * k], scaled_x, b[0], b[1]);
      mma(added[2 * k + 1], scaled_x, b[2], b[3]);
    }
    exchange.add(warp, added, last, lane);
#pragma unroll
    for (int k = 0; k < N / 16; ++k) {
      uint32_t b[4];
      load_a(C_rows_now[k], C + 16 * k, C_rows.pitch, lane);
      load_a(b, B + 16 * k, B_rows.pitch, lane);
      mma(CB[0], C_rows_now[k], b[0], b[2]);
      mma(CB[1], C_rows_now[k], b[1], b[3]);
    }
    // Columns behind a row do not reach it: of the second tile, those of rows g.
    WidePair M;
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      const int r = pair % 2, tile = pair / 2;
      if (tile > r) {
        M.clear(pair);
        continue;
      }
      float m[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const bool reached = tile < r || 2 * t + e <= g;
        const float L = exp2_fast(log_row[r] - from[2 * tile + e]);  // times dt
        m[e] = reached ? CB[tile][2 * r + e] * L : 0.0f;
      }
      M.set(pair, m[0], m[1]);
    }
    float inside[2][4] = {}, carried[2][4] = {};
    mma(inside[0], M, x_turned[0], x_turned[1]);
    mma(inside[1], M, x_turned[2], x_turned[3]);

    head_barrier(head);
    if (8 * warp < N) {
      exchange.template carry<true>(warp, state, lane, [&](int step, uint32_t low, uint32_t high) {
        if (chunk * kWalkRows + step * kStepRows >= span.length) return;
        *reinterpret_cast<uint2*>(state_at + step * kept) = make_uint2(transposed(low), transposed(high));
      });
    }
    head_barrier(head);
#pragma unroll
    for (int k = 0; k < N / 16; ++k) {
      uint32_t s[4];
      load_a(s, exchange.entering[warp] + 16 * k, StepStates<N>::kPitch, lane);
      mma(carried[0], C_rows_now[k], s[0], s[2]);
      mma(carried[1], C_rows_now[k], s[1], s[3]);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (row + g + 8 * r >= span.length) continue;
      const float e = exp2_fast(log_row[r]);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float2 own = load_pair(x + (g + 8 * r) * x_rows.pitch + 8 * n + 2 * t);
        store_two<kWhole>(y_at + 8 * r * y_stride + 8 * n, 8 * n + 2 * t, plan.P,
                          inside[n][2 * r] + e * carried[n][2 * r] + D * own.x,
                          inside[n][2 * r + 1] + e * carried[n][2 * r + 1] + D * own.y);
      }
    }
    y_at += kWalkRows * y_stride;
    state_at += kSteps * kept;
  }
}

}  // namespace

void ssd_walk_forward(const Layout& layout, const SsdShape& shape, const SsdInput<bf16>& in, bf16* y,
                      bf16* states, cudaStream_t stream) {
  const SsdPlan plan = ssd_walk_plan(layout, shape, kHeads);
  with_walk_tiles(plan, [&](auto N, auto whole) {
    constexpr int kN = decltype(N)::value;
    const auto kernel = walk_forward_kernel<kN, decltype(whole)::value>;
    const auto bytes = static_cast<int>(kStages * Stage(plan).elements() * sizeof(bf16) +
                                        plan.heads * sizeof(StepStates<kN>));
    allow_shared_memory(kernel, bytes);
    kernel<<<walk_blocks(plan, layout.batch), 128 * plan.heads, bytes, stream>>>(plan, in, y, states);
  });
  check_launch("ssd_walk_forward", plan.text());
}

}  // namespace hax::ops::cuda
