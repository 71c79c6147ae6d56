// States at the chunks' beginnings, and gradients of those at their ends, where sequences, heads and slices
// of P fill the device: a block walks all chunks of its own with 16 M rows of the state (P x N) in registers.
#include "lib/ops/cuda/ssd_states.h"
#include "lib/ops/cuda/ssd_walk.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kStages = 3;  // chunks in shared memory
constexpr int kWarps = 4;   // each has columns 16 (warp + 4 i) .. of N
constexpr int kPairs = 2;   // of 8 columns, times 16: as many as a warp has at most

struct Stage {
  int rows, keys, out;  // elements
  __host__ __device__ Stage(int P, int N)
      : rows(kWalkRows * (P + kPitchPad)), keys(kWalkRows * (N + kPitchPad)), out(P * (N + kPitchPad)) {}
  __host__ __device__ int elements() const { return kStages * (rows + keys) + out; }
};

// The state that chunk c leaves goes to states' place c + 1 (forward), the gradient of the one that entered
// it to place c - 1 (backward).
template <int M, SsdDirection D>
__global__ void __launch_bounds__(32 * kWarps, 3)
    state_walk_kernel(SsdPlan plan, SsdInput<bf16> in, Rows<const bf16> values, bf16* __restrict__ states) {
  extern __shared__ uint4 shared[];
  constexpr bool kForward = D == SsdDirection::forward;
  constexpr int P = 16 * M;
  const int N = plan.N_tile, slices = plan.P_tile / P;
  const int slice = blockIdx.x % slices, h = blockIdx.x / slices % plan.H;
  const int64_t sequence = blockIdx.x / slices / plan.H;
  const int64_t begin = plan.layout.cu_seqlens[sequence], end = plan.layout.cu_seqlens[sequence + 1];
  const int64_t first = begin / kWalkRows, last = (end - 1) / kWalkRows;
  const int steps = static_cast<int>(last - first), length = static_cast<int>(end - begin);
  const Stage stage(P, N);
  bf16* tiles = reinterpret_cast<bf16*>(shared);
  bf16* out = tiles + kStages * (stage.rows + stage.keys);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int out_pitch = N + kPitchPad;

  const Rows<const bf16>& key_source = kForward ? in.B : in.C;
  const WalkRows value_rows(values, begin, h * plan.P + slice * P, 1, min(P, plan.P - slice * P), P);
  const WalkRows key_rows(key_source, begin, h / (plan.H / plan.G) * plan.N, 1, plan.N, N);
  const auto chunk_of = [&](int step) { return kForward ? first + step : last - step; };
  const auto row_of = [&](int step) { return static_cast<int>(chunk_of(step) * kWalkRows - begin); };
  const bool vectors = value_rows.vectors && key_rows.vectors;
  const auto copy = [&](int step, auto by_vectors) {
    constexpr bool kVectors = decltype(by_vectors)::value;
    bf16* to = tiles + step % kStages * (stage.rows + stage.keys);
    value_rows.copy<kVectors>(to, row_of(step), length);
    key_rows.copy<kVectors>(to + stage.rows, row_of(step), length);
  };
  const auto fetch = [&](int step) {
    if (step < steps) {
      if (vectors)
        copy(step, std::true_type());
      else
        copy(step, std::false_type());
    }
    commit_copies();
  };
  const bf16* dt = in.dt.data + begin * in.dt.stride + h;
  float raw[2];
  bool used[2];
  const auto fetch_dt = [&](int step) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = row_of(step) + 2 * lane + r;
      used[r] = step < steps && WalkRows::in_range(row, length);
      raw[r] = used[r] ? to_float(dt[row * in.dt.stride]) : 0.0f;
    }
  };
  const float bias = in.dt_bias[h], rate = in.A[h] * kLog2E;

  fetch(0);
  fetch(1);
  fetch_dt(0);
  float state[M][2 * kPairs][4] = {};
  for (int step = 0; step < steps; ++step) {
    wait_copies<1>();
    __syncthreads();
    fetch(step + 2);
    ChunkDecays decay;
    decay.set(raw, used, bias, rate, lane);
    fetch_dt(step + 1);
    const float whole = __shfl_sync(0xffffffffu, decay.log[1], 31);
    float scale[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      scale[r] = kForward ? exp2_fast(whole - decay.log[r]) * decay.dt[r] : exp2_fast(decay.log[r]);
    }
    const float e = exp2_fast(whole);
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) state[m][n][c] *= e;
      }
    }
    const bf16* value = tiles + step % kStages * (stage.rows + stage.keys);
    const bf16* key = value + stage.rows;
#pragma unroll
    for (int k = 0; k < kWalkRows / 16; ++k) {
      float row_scale[4];
      of_chunk_columns(row_scale, scale, k, lane);
      WidePair a[M];
#pragma unroll
      for (int m = 0; m < M; ++m) {
        uint32_t rows[4];
        load_b_trans(rows, value + 16 * k * value_rows.pitch + 16 * m, value_rows.pitch, lane);
        a[m] = scaled_transpose(rows, row_scale);
      }
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int column = 16 * (warp + kWarps * i);
        if (column >= N) continue;
        uint32_t b[4];
        load_b_trans(b, key + 16 * k * key_rows.pitch + column, key_rows.pitch, lane);
#pragma unroll
        for (int m = 0; m < M; ++m) {
          mma(state[m][2 * i], a[m], b[0], b[1]);
          mma(state[m][2 * i + 1], a[m], b[2], b[3]);
        }
      }
    }
#pragma unroll
    for (int n = 0; n < 2 * kPairs; ++n) {
      const int column = 16 * (warp + kWarps * (n / 2)) + n % 2 * 8 + 2 * t;
      if (column >= N) continue;
#pragma unroll
      for (int m = 0; m < M; ++m) {
        bf16* to = out + (16 * m + g) * out_pitch + column;
        *reinterpret_cast<uint32_t*>(to) = pack(state[m][n][0], state[m][n][1]);
        *reinterpret_cast<uint32_t*>(to + 8 * out_pitch) = pack(state[m][n][2], state[m][n][3]);
      }
    }
    __syncthreads();
    const int64_t place = chunk_of(step) + (kForward ? 1 : -1);
    bf16* to = states + (place * plan.H + h) * plan.state_size() + slice * P * N;
    for (int i = threadIdx.x; i < P * N / 8; i += 32 * kWarps) {
      const int row = i / (N / 8), column = i % (N / 8) * 8;
      *reinterpret_cast<uint4*>(to + row * N + column) =
          *reinterpret_cast<const uint4*>(out + row * out_pitch + column);
    }
  }
}

}  // namespace

bool ssd_walks_states(const SsdPlan& plan) {
  return plan.layout.batch * plan.H * ceil_div(plan.P_tile, 32) >= 192;
}

template <SsdDirection D>
void ssd_walk_states(const SsdPlan& plan, const SsdInput<bf16>& in, Rows<const bf16> values, bf16* states,
                     cudaStream_t stream) {
  const auto launch = [&](auto M) {
    constexpr int kM = decltype(M)::value;
    const auto kernel = state_walk_kernel<kM, D>;
    const auto bytes = static_cast<int>(Stage(16 * kM, plan.N_tile).elements() * sizeof(bf16));
    const int64_t blocks = plan.layout.batch * plan.H * (plan.P_tile / (16 * kM));
    allow_shared_memory(kernel, bytes);
    kernel<<<static_cast<unsigned>(blocks), 32 * kWarps, bytes, stream>>>(plan, in, values, states);
  };
  if (plan.P_tile == 16)
    launch(std::integral_constant<int, 1>());
  else
    launch(std::integral_constant<int, 2>());
  check_launch("ssd_walk_states", plan.text());
}

template void ssd_walk_states<SsdDirection::forward>(const SsdPlan&, const SsdInput<bf16>&, Rows<const bf16>,
                                                     bf16*, cudaStream_t);
template void ssd_walk_states<SsdDirection::backward>(const SsdPlan&, const SsdInput<bf16>&, Rows<const bf16>,
                                                      bf16*, cudaStream_t);

}  // namespace hax::ops::cuda
