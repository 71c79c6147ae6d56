// The walk from the end: the gradient of the state goes from step to step, and each step's gradients follow
// from it and from the state kept by the forward pass. With dS the gradient of the state that leaves a step,
// S the state that enters it, e and w the decays from its beginning and to its end, M = C B^T o L and
// dM = dy (dt x)^T:
//   d(dt x) = M^T dy + w o (B dS)         dS_in = e_q dS + sum_i e_i dy_i C_i^T
//   dC = (dM o L) B + e o (dy S^T)        dB = (dM o L)^T C + w o (dt x) dS^T
//   da_t = sum over i >= t > j of (dM o M)_ij + sum over i >= t of own_i + sum over j < t of leaving_j
//          + e_q <S, dS>,   own_i = e_i dy_i . (S C_i), leaving_j = w_j (dt x)_j . (dS B_j)
// A block begins at the end of a segment, with the dS that the sums of those behind it make.
#include "lib/ops/cuda/cluster.cuh"
#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/ssd_walk_rows.cuh"
#include "lib/ops/cuda/ssd_walk_segments.h"

namespace hax::ops::cuda {
namespace {

constexpr int kStages = 2;  // chunks in shared memory

struct Stage {
  int rows, keys, states;  // elements
  __host__ __device__ explicit Stage(const SsdPlan& plan)
      : rows(kWalkRows * (plan.heads * 16 + kPitchPad)),
        keys(kWalkRows * (plan.N_tile + kPitchPad)),
        states(plan.heads * kSteps * 16 * plan.N_tile) {}
  __host__ __device__ int elements() const { return 2 * rows + 2 * keys + states; }
};

// The exchange of one head's states, and then, by step, its parts of dB and dC: tiles of 8 columns of N.
template <int N>
using Exchange = StepStates<N, N / 4>;

// Sums of dB and dC over a block's heads, in the blocks of the cluster that own their pieces: 8 columns of N
// of a step. Pieces are numbered by columns, then steps, and each block owns a run of them. A block sends the
// sums of a chunk while others may still read those of the chunk before, so there is room for two; and no
// block is two ahead of another, for each owns a piece and waits for it from all.
template <int N>
struct KeySums {
  static constexpr int kPieces = N / 4 * kSteps;  // at least twice the blocks of a cluster
  struct alignas(16) Head {
    int2 owners[kPieces];  // by piece: block, index there
    Arrivals arrivals[2];
    int expected;  // bytes that come to this block with each chunk, its own included
  };
  int parts, most_owned;
  Head* head;
  float4* data;  // (2, blocks summed, most_owned, 32)

  __host__ __device__ KeySums(const SsdPlan& plan, void* memory)
      : parts(plan.parts),
        most_owned((kPieces + parts - 1) / parts),
        head(static_cast<Head*>(memory)),
        data(reinterpret_cast<float4*>(head + 1)) {}
  int64_t bytes() const {
    return sizeof(Head) + 2 * parts * most_owned * 32 * static_cast<int64_t>(sizeof(float4));
  }
  // By all threads, and a barrier of the cluster after it. part: this block.
  __device__ __forceinline__ void init(int part) const {
    const auto first_of = [&](int block) { return (block * kPieces + parts - 1) / parts; };
    for (int piece = threadIdx.x; piece < kPieces; piece += blockDim.x) {
      const int owner = piece * parts / kPieces;
      head->owners[piece] = make_int2(owner, piece - first_of(owner));
    }
    if (threadIdx.x == 0) {
      head->arrivals[0].init();
      head->arrivals[1].init();
      head->expected = (first_of(part + 1) - first_of(part)) * parts * 32 * static_cast<int>(sizeof(float4));
    }
  }
  __device__ __forceinline__ float4* at(int chunk, int part, int index, int lane) const {
    return data + ((chunk % 2 * parts + part) * most_owned + index) * 32 + lane;
  }
};

__device__ __forceinline__ void add(float4& sum, const float4& more) {
  sum.x += more.x;
  sum.y += more.y;
  sum.z += more.z;
  sum.w += more.w;
}

// The blocks of a group are a cluster. kWhole: P is 16 and the shape's N is N. by_segment (places, 3, H): dA,
// dD, ddt_bias.
template <int N, bool kWhole>
__global__ void __launch_bounds__(128 * kWalkHeads, 1)
    walk_backward_kernel(SsdPlan plan, SsdInput<bf16> in, const bf16* __restrict__ states,
                         Rows<const bf16> upstream, SsdGradient<bf16> out, SsdSegments segments,
                         SsdSegmentSums sums_behind, float* __restrict__ by_segment) {
  extern __shared__ uint4 shared[];
  if (const int64_t own = filler(plan, segments.places(plan.layout)); own >= 0) {
    zero_rows(plan, own, out.dx, plan.H * plan.P);
    zero_rows(plan, own, {out.ddt, plan.H}, plan.H);
    zero_rows(plan, own, out.dB, plan.G * plan.N);
    zero_rows(plan, own, out.dC, plan.G * plan.N);
    return;
  }
  SsdSegment segment;
  if (segments.later > 0) {
    segment = sums_behind.order[place_of_rows(plan)];
  } else {
    const int64_t sequence = place_of_rows(plan);
    const WalkedRows rows = walked_sequence(plan.layout, sequence);
    segment = {rows.begin, rows.first_state, rows.length, 0, 0, static_cast<int>(sequence)};
  }
  const WalkSpan span(plan, {segment.begin, segment.first_state, segment.length});
  const Stage stage(plan);
  bf16* tiles = reinterpret_cast<bf16*>(shared);
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp = threadIdx.x / 32 % kSteps, head = threadIdx.x / 128, h = span.first_head + head;
  const int own_row = warp * kStepRows + lane % kStepRows;
  Exchange<N>* exchanges = reinterpret_cast<Exchange<N>*>(tiles + kStages * stage.elements());
  Exchange<N>& exchange = exchanges[head];
  RowSums* all_rows = reinterpret_cast<RowSums*>(exchanges + plan.heads);
  const KeySums<N> key_sums(plan, all_rows + plan.heads * kSteps);
  RowSums& rows = all_rows[threadIdx.x / 32];

  const WalkRows x_rows(in.x, span.begin, span.first_head * plan.P, plan.heads, plan.P, 16);
  const WalkRows dy_rows(upstream, span.begin, span.first_head * plan.P, plan.heads, plan.P, 16);
  const WalkRows B_rows(in.B, span.begin, span.group * plan.N, 1, plan.N, N);
  const WalkRows C_rows(in.C, span.begin, span.group * plan.N, 1, plan.N, N);
  const int64_t kept_apart = kept_stride<N>(plan);
  const bf16* kept = states + first_kept<N>(plan, span, h) + lane * 8;
  const bool vectors = x_rows.vectors && dy_rows.vectors && B_rows.vectors && C_rows.vectors;
  const auto copy = [&](int chunk, auto by_vectors) {
    constexpr bool kVectors = decltype(by_vectors)::value;
    bf16* to = tiles + chunk % kStages * stage.elements();
    x_rows.copy<kVectors>(to, chunk * kWalkRows, span.length);
    dy_rows.copy<kVectors>(to + stage.rows, chunk * kWalkRows, span.length);
    B_rows.copy<kVectors>(to + 2 * stage.rows, chunk * kWalkRows, span.length);
    C_rows.copy<kVectors>(to + 2 * stage.rows + stage.keys, chunk * kWalkRows, span.length);
  };
  const auto fetch = [&](int chunk) {
    if (vectors)
      copy(chunk, std::true_type());
    else
      copy(chunk, std::false_type());
    const int step = chunk * kSteps + warp;
    const bool real = step * kStepRows < span.length;
    const bf16* from = kept + (real ? step : 0) * kept_apart;
    bf16* to = tiles + chunk % kStages * stage.elements() + 2 * (stage.rows + stage.keys) +
               (head * kSteps + warp) * 16 * N + lane * 8;
#pragma unroll
    for (int k = 0; k < N / 16; ++k) copy_async(to + 256 * k, from + 256 * k, real);
  };
  const bf16* dt = in.dt.data + (span.begin + own_row) * in.dt.stride + h;
  const int64_t dt_stride = kWalkRows * in.dt.stride;
  const auto raw_step = [&](int chunk) {
    const bool used = chunk >= 0 && chunk * kWalkRows + own_row < span.length;
    return used ? dt[chunk * dt_stride] : from_float<bf16>(0.0f);
  };
  const int64_t group_row = span.begin + warp * kStepRows + g;  // of chunk 0
  bf16* dx_at = out.dx.data + group_row * out.dx.stride + h * plan.P + 2 * t;
  bf16* dB_at = out.dB.data + group_row * out.dB.stride + span.group * plan.N + 2 * t;
  bf16* dC_at = out.dC.data + group_row * out.dC.stride + span.group * plan.N + 2 * t;
  const float bias = in.dt_bias[h], A = in.A[h], D = in.D[h];

  HeadSums head_sums;
  bf16 raw = raw_step(span.chunks() - 1);
  if (span.chunks() > 0) fetch(span.chunks() - 1);
  commit_copies();
  float dstate[4] = {};  // warp w's tile, as the exchange carries it
  if (8 * warp < N) {
    for (int i = segment.behind - 1; i >= 0; --i) {
      const int64_t slot = static_cast<int64_t>(segment.next + i) * plan.H + h;
      const float e = sums_behind.decays[slot];
      const float4 more = sums_behind.added[(slot * (N / 8) + warp) * 32 + lane];
      dstate[0] = e * dstate[0] + more.x;
      dstate[1] = e * dstate[1] + more.y;
      dstate[2] = e * dstate[2] + more.z;
      dstate[3] = e * dstate[3] + more.w;
    }
  }
  const auto store_keys = [&](int chunk, int key_tile, const float4& sum) {
    const bool is_dB = key_tile < N / 8;
    const int64_t stride = is_dB ? out.dB.stride : out.dC.stride;
    const int column = key_tile % (N / 8) * 8, row = chunk * kWalkRows + warp * kStepRows + g;
    bf16* to = (is_dB ? dB_at : dC_at) + chunk * kWalkRows * stride + column;
    if (row < span.length) store_two<kWhole>(to, column + 2 * t, plan.N, sum.x, sum.y);
    if (row + 8 < span.length) store_two<kWhole>(to + 8 * stride, column + 2 * t, plan.N, sum.z, sum.w);
  };
  const auto finish_keys = [&](int chunk) {
    bool waited = false;
    for (int key_tile = head; key_tile < N / 4; key_tile += plan.heads) {
      const int2 owner = key_sums.head->owners[key_tile * kSteps + warp];
      if (owner.x != span.part) continue;
      if (!waited) key_sums.head->arrivals[chunk % 2].wait((span.chunks() - 1 - chunk) / 2);
      waited = true;
      float4 sum = *key_sums.at(chunk, 0, owner.y, lane);
#pragma unroll 1
      for (int i = 1; i < plan.parts; ++i) add(sum, *key_sums.at(chunk, i, owner.y, lane));
      store_keys(chunk, key_tile, sum);
    }
  };
  if (plan.parts > 1) {
    key_sums.init(span.part);
    cluster_arrive();
    cluster_wait();
  }
  for (int chunk = span.chunks() - 1; chunk >= 0; --chunk) {
    wait_copies<0>();
    __syncthreads();
    if (chunk > 0) fetch(chunk - 1);
    commit_copies();
    const bf16* tile = tiles + chunk % kStages * stage.elements();
    const bf16* x = tile + warp * kStepRows * x_rows.pitch + head * 16;
    const bf16* dy = x + stage.rows;
    const bf16* B = tile + 2 * stage.rows + warp * kStepRows * B_rows.pitch;
    const bf16* C = B + stage.keys;
    const bf16* S = tile + 2 * (stage.rows + stage.keys) + (head * kSteps + warp) * 16 * N + lane * 8;
    const int x_pitch = x_rows.pitch, key_pitch = B_rows.pitch;
    const int row = chunk * kWalkRows + warp * kStepRows;  // of the segment

    StepDecays decay;
    decay.set(raw, bias, A * kLog2E, chunk * kWalkRows + own_row < span.length, lane);
    raw = raw_step(chunk - 1);
    const float last = __shfl_sync(0xffffffffu, decay.log, kStepRows - 1);
    float log_row[2], dt_row[2], log_column[4], e_column[4];
    of_rows(log_row, decay.log, lane);
    of_rows(dt_row, decay.dt, lane);
    of_columns(log_column, decay.log, lane);
#pragma unroll
    for (int e = 0; e < 4; ++e) e_column[e] = exp2_fast(log_column[e]);

    uint32_t dy_turned[4], C_turned[N / 16][4];
    load_b_trans(dy_turned, dy, x_pitch, lane);
#pragma unroll
    for (int k = 0; k < N / 16; ++k) load_b_trans(C_turned[k], C + 16 * k, key_pitch, lane);
    {
      float added[N / 8][4] = {};
      const WidePair scaled_dy = scaled_transpose(dy_turned, e_column);
#pragma unroll
      for (int k = 0; k < N / 16; ++k) {
        mma(added[2 * k], scaled_dy, C_turned[k][0], C_turned[k][1]);
        mma(added[2 * k + 1], scaled_dy, C_turned[k][2], C_turned[k][3]);
      }
      exchange.add(warp, added, last, lane);
    }

    // Row j, column i: B_j . C_i, dy_i . x_j.
    uint32_t x_now[4], dy_now[4], B_now[N / 16][4], C_now[N / 16][4];
    float BC[2][4] = {}, dM[2][4] = {};
    load_a(x_now, x, x_pitch, lane);
    load_a(dy_now, dy, x_pitch, lane);
    mma(dM[0], x_now, dy_now[0], dy_now[2]);
    mma(dM[1], x_now, dy_now[1], dy_now[3]);
#pragma unroll
    for (int k = 0; k < N / 16; ++k) {
      load_a(B_now[k], B + 16 * k, key_pitch, lane);
      load_a(C_now[k], C + 16 * k, key_pitch, lane);
      mma(BC[0], B_now[k], C_now[k][0], C_now[k][2]);
      mma(BC[1], B_now[k], C_now[k][1], C_now[k][3]);
    }
    // Rows j that reach columns i: of the first tile, none of the rows g + 8.
    WidePair M, dBC, pairs;
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      const int r = pair % 2, half = pair / 2;
      if (r > half) {
        M.clear(pair);
        dBC.clear(pair);
        pairs.clear(pair);
        continue;
      }
      float m[2], d[2], both[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const bool reached = r < half || g <= 2 * t + e;
        const float L = reached ? exp2_fast(log_column[2 * half + e] - log_row[r]) : 0.0f;
        m[e] = BC[half][2 * r + e] * L;
        d[e] = dM[half][2 * r + e] * dt_row[r];
        d[e] *= L;
        both[e] = r < half || g < 2 * t + e ? d[e] * BC[half][2 * r + e] : 0.0f;
      }
      M.set(pair, m[0], m[1]);
      dBC.set(pair, d[0], d[1]);
      pairs.set(pair, both[0], both[1]);
    }
    const float pair_sum = straddling_pairs(pairs, lane);
    if (g % 2 == 0) rows.pairs[8 * (g / 4) + 2 * t + g / 2 % 2] = pair_sum;
    float dxt[2][4] = {}, leaving[2][4] = {};
    mma(dxt[0], M, dy_turned[0], dy_turned[1]);
    mma(dxt[1], M, dy_turned[2], dy_turned[3]);

    head_barrier(head);
    if (8 * warp < N) {
      exchange.template carry<false>(warp, dstate, lane, [](int, uint32_t, uint32_t) {});
    }
    head_barrier(head);
    const bf16* dS = exchange.entering[warp];
    constexpr int kPitch = Exchange<N>::kPitch;
#pragma unroll
    for (int k = 0; k < N / 16; ++k) {
      uint32_t b[4];
      load_a(b, dS + 16 * k, kPitch, lane);
      mma(leaving[0], B_now[k], b[0], b[2]);
      mma(leaving[1], B_now[k], b[1], b[3]);
    }
    float sums[2][4];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float w = exp2_fast(last - log_row[r]);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          leaving[n][2 * r + e] *= w;
          dxt[n][2 * r + e] += leaving[n][2 * r + e];
        }
      }
      sums[r][1] = dt_row[r] * dot_row(leaving[0], leaving[1], x_now, r);
      sums[r][2] = dot_row(dxt[0], dxt[1], x_now, r);
      sums[r][3] = low(dy_now[r]) * low(x_now[r]) + high(dy_now[r]) * high(x_now[r]) +
                   low(dy_now[2 + r]) * low(x_now[2 + r]) + high(dy_now[2 + r]) * high(x_now[2 + r]);
      if (row + g + 8 * r < span.length) {
        bf16* to = dx_at + (chunk * kWalkRows + 8 * r) * out.dx.stride;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const uint32_t own = dy_now[2 * n + r];
          store_two<kWhole>(to + 8 * n, 8 * n + 2 * t, plan.P, dt_row[r] * dxt[n][2 * r] + D * low(own),
                            dt_row[r] * dxt[n][2 * r + 1] + D * high(own));
        }
      }
    }
    // dB's tiles and, by columns of 16, the trace of S dS^T.
    float trace[2][4] = {};
    const float w_dt[2] = {exp2_fast(last - log_row[0]) * dt_row[0],
                           exp2_fast(last - log_row[1]) * dt_row[1]};
    const float e_row[2] = {exp2_fast(log_row[0]), exp2_fast(log_row[1])};
    WidePair dCB;  // row i, column j
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      const int from = pair / 2 + pair % 2 * 2;
      dCB.big[pair] = pair == 2 ? 0 : transposed(dBC.big[from]);
      dCB.small[pair] = pair == 2 ? 0 : transposed(dBC.small[from]);
    }
    sums[0][0] = sums[1][0] = 0.0f;
#pragma unroll
    for (int k = 0; k < N / 16; ++k) {
      uint32_t ds[4], b[4];
      load_b_trans(ds, dS + 16 * k, kPitch, lane);
      load_b_trans(b, B + 16 * k, key_pitch, lane);
      const uint4 s = *reinterpret_cast<const uint4*>(S + 256 * k);
      const uint32_t S_columns[4] = {s.x, s.z, s.y, s.w};
      mma(trace[0], S_columns, ds[0], ds[1]);
      mma(trace[1], S_columns, ds[2], ds[3]);
      const uint32_t S_tiles[4] = {s.x, s.y, s.z, s.w};
      float dC_tile[2][4] = {};
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        float dB_tile[4] = {};
        mma(dB_tile, x_now, ds[2 * n], ds[2 * n + 1]);
        mma(dC_tile[n], dy_now, S_tiles[2 * n], S_tiles[2 * n + 1]);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          dB_tile[c] *= w_dt[c / 2];
          dC_tile[n][c] *= e_row[c / 2];
        }
        mma(dB_tile, dBC, C_turned[k][2 * n], C_turned[k][2 * n + 1]);
        exchange.added[warp][2 * k + n][lane] = make_float4(dB_tile[0], dB_tile[1], dB_tile[2], dB_tile[3]);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) sums[r][0] += dot_row(dC_tile[0], dC_tile[1], C_now[k], r);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        mma(dC_tile[n], dCB, b[2 * n], b[2 * n + 1]);
        exchange.added[warp][N / 8 + 2 * k + n][lane] =
            make_float4(dC_tile[n][0], dC_tile[n][1], dC_tile[n][2], dC_tile[n][3]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      reinterpret_cast<float*>(&rows.sums[g + 8 * r])[t] = quad_sums(sums[r], lane);
    }
    const float diagonal = g / 2 != t ? 0.0f : g % 2 ? trace[0][1] + trace[1][3] : trace[0][0] + trace[1][2];
    const float through = exp2_fast(last) * warp_sum(diagonal);
    __syncwarp();
    const float ddt = finish_rows(rows, decay, A, through, head_sums, lane);
    if (lane < kStepRows && row + lane < span.length) {
      out.ddt[(span.begin + row + lane) * plan.H + h] = from_float<bf16>(ddt);
    }

    // Sums over the block's heads, in their order, to the blocks that own the pieces; there over the blocks,
    // a chunk later, when they have come.
    if (plan.parts > 1 && chunk + 1 < span.chunks()) finish_keys(chunk + 1);
    __syncthreads();
    if (plan.parts > 1 && threadIdx.x == 0)
      key_sums.head->arrivals[chunk % 2].expect(key_sums.head->expected);
    for (int key_tile = head; key_tile < N / 4; key_tile += plan.heads) {
      float4 sum = exchanges[0].added[warp][key_tile][lane];
#pragma unroll
      for (int i = 1; i < kWalkHeads; ++i) {
        if (i < plan.heads) add(sum, exchanges[i].added[warp][key_tile][lane]);
      }
      if (plan.parts == 1) {
        store_keys(chunk, key_tile, sum);
      } else {
        const int2 owner = key_sums.head->owners[key_tile * kSteps + warp];
        store_in_block(owner.x, key_sums.at(chunk, span.part, owner.y, lane), sum,
                       key_sums.head->arrivals + chunk % 2);
      }
    }
  }
  if (plan.parts > 1 && span.chunks() > 0) finish_keys(0);
  // The rows' lanes of a head, then its warps in their order.
  if (lane >= kStepRows) head_sums = HeadSums();
  const float totals[3] = {warp_sum(head_sums.dA), warp_sum(head_sums.dD), warp_sum(head_sums.dbias)};
  __syncthreads();
  if (lane == 0) rows.sums[0] = make_float4(totals[0], totals[1], totals[2], 0.0f);
  __syncthreads();
  if (warp == 0 && lane < 3) {
    float sum = 0.0f;
    for (int i = 0; i < kSteps; ++i) {
      sum += reinterpret_cast<const float*>(&all_rows[head * kSteps + i].sums[0])[lane];
    }
    by_segment[(static_cast<int64_t>(segment.place) * 3 + lane) * plan.H + h] = sum;
  }
}

// The scratch's parts, each beginning at a multiple of 16 bytes.
struct Scratch {
  Scratch(const SsdPlan& plan, const SsdSegments& segments)
      : added(segments.places(plan.layout) * static_cast<int64_t>(sizeof(SsdSegment))),
        decays(added + segments.later * plan.H * 16 * plan.N_tile * 4),
        by_segment(decays + (segments.later * plan.H * 4 + 15) / 16 * 16),
        bytes(by_segment + segments.places(plan.layout) * 3 * plan.H * 4) {}
  int64_t added, decays, by_segment, bytes;  // the order comes first
};

}  // namespace

int64_t ssd_walk_backward_scratch_bytes(const Layout& layout, const SsdShape& shape) {
  const SsdPlan plan = ssd_walk_plan(layout, shape, kWalkHeads);
  return Scratch(plan, ssd_segments(plan)).bytes;
}

void ssd_walk_backward(const Layout& layout, const SsdShape& shape, const SsdInput<bf16>& in,
                       const bf16* states, Rows<const bf16> dy, const SsdGradient<bf16>& out, void* scratch,
                       cudaStream_t stream) {
  const SsdPlan plan = ssd_walk_plan(layout, shape, kWalkHeads);
  const SsdSegments segments = ssd_segments(plan);
  const Scratch places(plan, segments);
  char* memory = static_cast<char*>(scratch);
  const SsdSegmentSums sums{reinterpret_cast<SsdSegment*>(memory),
                            reinterpret_cast<float4*>(memory + places.added),
                            reinterpret_cast<float*>(memory + places.decays)};
  float* by_segment = reinterpret_cast<float*>(memory + places.by_segment);
  if (segments.later > 0) ssd_walk_segment_sums(layout, shape, segments, in, dy, sums, stream);
  with_walk_tiles(plan, [&](auto N, auto whole) {
    constexpr int kN = decltype(N)::value;
    const auto kernel = walk_backward_kernel<kN, decltype(whole)::value>;
    const int64_t bytes = kStages * Stage(plan).elements() * sizeof(bf16) +
                          plan.heads * (sizeof(Exchange<kN>) + kSteps * sizeof(RowSums)) +
                          KeySums<kN>(plan, nullptr).bytes();
    allow_shared_memory(kernel, bytes);
    launch_clusters(kernel, plan.parts, walk_blocks(plan, segments.places(layout)), 128 * plan.heads, bytes,
                    stream, plan, in, states, dy, out, segments, sums, by_segment);
  });
  check_launch("ssd_walk_backward", plan.text());
  column_sums("ssd_walk_backward's sums by head", by_segment, segments.places(layout), 3 * plan.H,
              out.by_head, stream);
}

}  // namespace hax::ops::cuda
