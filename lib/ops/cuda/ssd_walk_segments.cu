// For the segments that are not their sequence's first, sum_i e_i dy_i C_i^T over their rows, e_i the decay
// from the segment's beginning; and the order in which the segments are to be walked.
#include "lib/ops/cuda/ssd_walk_segments.h"

#include <algorithm>

#include "lib/ops/cuda/ssd_walk.cuh"

namespace hax::ops::cuda {
namespace {

// Chunks that the longest walk must lose for the sums to be worth their time, and chunks of a segment at the
// least.
constexpr int64_t kWorthwhile = 4;
constexpr int kHeads = 2;     // of a block, at most
constexpr int kTogether = 8;  // chunks of a segment at once, one to each warp of a head

int64_t multiprocessors() {
  int device = 0, count = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

__device__ __forceinline__ int chunks_of_rows(int rows) { return (rows + kWalkRows - 1) / kWalkRows; }

// Of length 0 where the place has none.
__device__ __forceinline__ SsdSegment segment_at(const Layout& layout, const SsdSegments& segments,
                                                 int64_t place) {
  SsdSegment segment{};
  segment.place = static_cast<int>(place);
  int64_t sequence = place, window = 0;
  if (place >= layout.batch) {
    window = place - layout.batch + 1;
    const int64_t row = window * segments.rows - 1;
    if (row >= layout.cu_seqlens[layout.batch]) return segment;
    sequence = layout.seq_id[row];
  }
  const WalkedRows all = walked_sequence(layout, sequence);
  const int64_t first_window = all.begin / segments.rows;
  const int64_t first = place < layout.batch ? 0 : (window - first_window) * segments.rows;
  if (first >= all.length) return segment;
  segment.begin = all.begin + first;
  segment.first_state = all.first_state + first / kStepRows;
  const int64_t left = all.length - first;
  segment.length = static_cast<int>(min(left, segments.rows));
  segment.behind = static_cast<int>((left - 1) / segments.rows);
  segment.next = static_cast<int>(first_window + first / segments.rows);
  return segment;
}

// By one block. The segments of most chunks come first: those that start last are the shortest, and all
// blocks end at about the same time. Among as many chunks the order is any, on which no result depends.
__device__ __forceinline__ void order_segments(const SsdPlan& plan, const SsdSegments& segments,
                                               SsdSegment* __restrict__ order, int* ahead) {
  const int classes = static_cast<int>(segments.rows / kWalkRows) + 1;  // by chunks
  const int64_t places = plan.layout.batch + segments.later;
  for (int i = threadIdx.x; i < classes; i += blockDim.x) ahead[i] = 0;
  __syncthreads();
  for (int64_t place = threadIdx.x; place < places; place += blockDim.x) {
    atomicAdd(&ahead[chunks_of_rows(segment_at(plan.layout, segments, place).length)], 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int sum = 0;
    for (int i = classes - 1; i >= 0; --i) {
      const int count = ahead[i];
      ahead[i] = sum;
      sum += count;
    }
  }
  __syncthreads();
  for (int64_t place = threadIdx.x; place < places; place += blockDim.x) {
    const SsdSegment segment = segment_at(plan.layout, segments, place);
    order[atomicAdd(&ahead[chunks_of_rows(segment.length)], 1)] = segment;
  }
}

struct Stage {
  int values, keys;  // elements, of one chunk
  __host__ __device__ explicit Stage(const SsdPlan& plan)
      : values(kWalkRows * (plan.heads * 16 + kPitchPad)), keys(kWalkRows * (plan.N_tile + kPitchPad)) {}
  __host__ __device__ int elements() const { return kTogether * (values + keys); }
};

// One head's chunks.
template <int N>
struct ChunkSums {
  float4 added[kTogether][N / 8][32];
  float log[kTogether];
};

// Eight warps to a head: each sums one chunk of eight, and then the first ones carry one tile of 8 columns of
// N each over them. Block 0 makes the order.
template <int N>
__global__ void __launch_bounds__(32 * kTogether * kHeads, 2)
    segment_sums_kernel(SsdPlan plan, SsdSegments segments, SsdInput<bf16> in, Rows<const bf16> upstream,
                        SsdSegmentSums sums) {
  extern __shared__ uint4 shared[];
  if (blockIdx.x == 0) return order_segments(plan, segments, sums.order, reinterpret_cast<int*>(shared));
  const int blocks = blocks_of_rows(plan), first_head = (blockIdx.x - 1) % blocks * plan.heads;
  const int64_t later = (blockIdx.x - 1) / blocks;
  const SsdSegment segment = segment_at(plan.layout, segments, plan.layout.batch + later);
  if (segment.length == 0) return;
  const Stage stage(plan);
  bf16* values = reinterpret_cast<bf16*>(shared);
  bf16* keys = values + kTogether * stage.values;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32 % kTogether, head = threadIdx.x / 32 / kTogether, h = first_head + head;
  ChunkSums<N>& chunk_sums = reinterpret_cast<ChunkSums<N>*>(values + stage.elements())[head];

  const int group = first_head / (plan.H / plan.G);
  const WalkRows value_rows(upstream, segment.begin, first_head * plan.P, plan.heads, plan.P, 16);
  const WalkRows key_rows(in.C, segment.begin, group * plan.N, 1, plan.N, N);
  const bf16* dt = in.dt.data + segment.begin * in.dt.stride + h;
  const float bias = in.dt_bias[h], rate = in.A[h] * kLog2E;

  float state[4] = {}, log = 0.0f;
  for (int first = (chunks_of_rows(segment.length) - 1) / kTogether * kTogether; first >= 0;
       first -= kTogether) {
    for (int i = 0; i < kTogether; ++i) {
      const int row = (first + i) * kWalkRows;
      if (value_rows.vectors && key_rows.vectors) {
        value_rows.copy<true>(values + i * stage.values, row, segment.length);
        key_rows.copy<true>(keys + i * stage.keys, row, segment.length);
      } else {
        value_rows.copy<false>(values + i * stage.values, row, segment.length);
        key_rows.copy<false>(keys + i * stage.keys, row, segment.length);
      }
    }
    commit_copies();
    float raw[2];
    bool used[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = (first + warp) * kWalkRows + 2 * lane + r;
      used[r] = row < segment.length;
      raw[r] = used[r] ? to_float(dt[row * in.dt.stride]) : 0.0f;
    }
    ChunkDecays decay;
    decay.set(raw, used, bias, rate, lane);
    const float scale[2] = {exp2_fast(decay.log[0]), exp2_fast(decay.log[1])};
    wait_copies<0>();
    __syncthreads();
    const bf16* value = values + warp * stage.values + head * 16;
    const bf16* key = keys + warp * stage.keys;
    float added[N / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kWalkRows / 16; ++k) {
      float row_scale[4];
      of_chunk_columns(row_scale, scale, k, lane);
      uint32_t rows[4];
      load_b_trans(rows, value + 16 * k * value_rows.pitch, value_rows.pitch, lane);
      const WidePair a = scaled_transpose(rows, row_scale);
#pragma unroll
      for (int n = 0; n < N / 16; ++n) {
        uint32_t b[4];
        load_b_trans(b, key + 16 * k * key_rows.pitch + 16 * n, key_rows.pitch, lane);
        mma(added[2 * n], a, b[0], b[1]);
        mma(added[2 * n + 1], a, b[2], b[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < N / 8; ++n) {
      chunk_sums.added[warp][n][lane] = make_float4(added[n][0], added[n][1], added[n][2], added[n][3]);
    }
    if (lane == 31) chunk_sums.log[warp] = decay.log[1];
    __syncthreads();
#pragma unroll
    for (int i = kTogether - 1; i >= 0; --i) {
      const float chunk_log = chunk_sums.log[i], e = exp2_fast(chunk_log);
      log += chunk_log;
      if (8 * warp >= N) continue;
      const float4 more = chunk_sums.added[i][warp][lane];
      state[0] = e * state[0] + more.x;
      state[1] = e * state[1] + more.y;
      state[2] = e * state[2] + more.z;
      state[3] = e * state[3] + more.w;
    }
  }
  const int64_t slot = later * plan.H + h;
  if (8 * warp < N) {
    sums.added[(slot * (N / 8) + warp) * 32 + lane] = make_float4(state[0], state[1], state[2], state[3]);
  }
  if (warp == 0 && lane == 0) sums.decays[slot] = exp2_fast(log);
}

}  // namespace

// By what the shape says: what is longest against the share of a multiprocessor that walks as much as every
// other. No segment is longer than a share, so those that start first end with it, and the others fill the
// rest.
SsdSegments ssd_segments(const SsdPlan& plan) {
  const int64_t longest = ceil_div(plan.layout.max_seqlen, kWalkRows);
  // A sequence's last chunk is half full on average.
  const int64_t all = (plan.layout.rows / kWalkRows + plan.layout.batch / 2) * blocks_of_rows(plan);
  const int64_t chunks = std::max(kWorthwhile, ceil_div(all, multiprocessors()));
  if (longest < chunks + kWorthwhile) return {longest * kWalkRows, 0};
  return {chunks * kWalkRows, (plan.layout.rows - 1) / (chunks * kWalkRows)};
}

void ssd_walk_segment_sums(const Layout& layout, const SsdShape& shape, const SsdSegments& segments,
                           const SsdInput<bf16>& in, Rows<const bf16> dy, const SsdSegmentSums& sums,
                           cudaStream_t stream) {
  const SsdPlan plan = ssd_walk_plan(layout, shape, kHeads);
  const auto launch = [&](auto N) {
    constexpr int kN = decltype(N)::value;
    const auto kernel = segment_sums_kernel<kN>;
    const int64_t bytes =
        std::max<int64_t>(Stage(plan).elements() * sizeof(bf16) + plan.heads * sizeof(ChunkSums<kN>),
                          (segments.rows / kWalkRows + 1) * sizeof(int));
    allow_shared_memory(kernel, bytes);
    const int64_t blocks = 1 + segments.later * blocks_of_rows(plan);
    kernel<<<static_cast<unsigned>(blocks), 32 * kTogether * plan.heads, bytes, stream>>>(plan, segments, in,
                                                                                          dy, sums);
  };
  if (plan.N_tile == 16)
    launch(std::integral_constant<int, 16>());
  else
    launch(std::integral_constant<int, 32>());
  check_launch("ssd_walk_segment_sums", plan.text());
}

}  // namespace hax::ops::cuda
