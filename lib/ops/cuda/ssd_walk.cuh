// What the walks of lib/ops/cuda/ssd_walk.h share: a block's sequence or segment of one, its rows in shared
// memory, decays, and the states that go from step to step.
//
// Lanes of a warp, g = lane / 4 and t = lane % 4, hold tiles as lib/ops/cuda/tiles.cuh says. A row-major tile
// loaded by load_a is also B of its transpose, (a[0], a[2]) and (a[1], a[3]); one loaded by load_b_trans is
// also A of its transpose, in the order 0, 2, 1, 3.
#pragma once

#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/ssd_walk.h"
#include "lib/ops/cuda/tiles.cuh"

namespace hax::ops::cuda {

constexpr int kPitchPad = 8;  // elements behind each row in shared memory: ldmatrix without bank conflicts

// Rows that are walked from one end to the other: a sequence or, in the backward pass, a segment of one.
struct WalkedRows {
  int64_t begin, first_state;  // of the steps' places (ssd_walk_slots), the first
  int length;
};

__device__ __forceinline__ WalkedRows walked_sequence(const Layout& layout, int64_t sequence) {
  const int64_t begin = layout.cu_seqlens[sequence];
  return {begin, begin / kStepRows + sequence, static_cast<int>(layout.cu_seqlens[sequence + 1] - begin)};
}

// Blocks that walk the same rows lie side by side, and the fillers come last.
inline __host__ __device__ int blocks_of_rows(const SsdPlan& plan) { return plan.H / plan.heads; }
__device__ __forceinline__ int64_t place_of_rows(const SsdPlan& plan) {
  return blockIdx.x / blocks_of_rows(plan);
}

// Rows and heads of blockIdx.x.
struct WalkSpan : WalkedRows {
  int first_head, group, part;  // part: which block of the group

  __device__ __forceinline__ WalkSpan(const SsdPlan& plan, const WalkedRows& rows) : WalkedRows(rows) {
    const int block = blockIdx.x % blocks_of_rows(plan);
    first_head = block * plan.heads;
    group = block / plan.parts;
    part = block % plan.parts;
  }
  __device__ __forceinline__ int chunks() const { return (length + kWalkRows - 1) / kWalkRows; }
};

// Blocks that write the zeros behind the last sequence; as many as make whole clusters.
inline __host__ __device__ int fillers(const SsdPlan& plan) { return 64 / plan.parts * plan.parts; }
// places: for rows that are walked.
inline unsigned walk_blocks(const SsdPlan& plan, int64_t places) {
  return static_cast<unsigned>(blocks_of_rows(plan) * places + fillers(plan));
}
// Which filler this block is; below 0: none.
__device__ __forceinline__ int64_t filler(const SsdPlan& plan, int64_t places) {
  return blockIdx.x - blocks_of_rows(plan) * places;
}

// By the fillers, a warp to a row: zeros in all rows that are not in use.
__device__ __forceinline__ void zero_rows(const SsdPlan& plan, int64_t filler, const Rows<bf16>& to,
                                          int columns) {
  const bool wide = columns % 8 == 0 && to.stride % 8 == 0 && reinterpret_cast<uintptr_t>(to.data) % 16 == 0;
  const int64_t warps = blockDim.x / 32, first = filler * warps + threadIdx.x / 32;
  for (int64_t row = plan.layout.cu_seqlens[plan.layout.batch] + first; row < plan.layout.rows;
       row += fillers(plan) * warps) {
    bf16* at = to.data + row * to.stride;
    for (int i = threadIdx.x % 32; i < (wide ? columns / 8 : columns); i += 32) {
      if (wide)
        reinterpret_cast<uint4*>(at)[i] = make_uint4(0, 0, 0, 0);
      else
        at[i] = from_float<bf16>(0.0f);
    }
  }
}

// The copy of WalkRows whose rows are not read 16 bytes at a time.
static __device__ __noinline__ void copy_singly(bf16* to, const bf16* data, int64_t stride, int pitch,
                                                int blocks, int columns, int padded, int row, int length) {
  const int width = blocks * padded;
  for (int i = threadIdx.x; i < kWalkRows * width; i += blockDim.x) {
    const int r = i / width, at = i - r * width, block = at / padded, inside = at - block * padded;
    const bool real = row + r >= 0 && row + r < length && inside < columns;
    to[r * pitch + at] = real ? data[(row + r) * stride + block * columns + inside] : from_float<bf16>(0.0f);
  }
}

// Rows of `blocks` pieces of `columns` neighbours, each filled up to `padded` with zeros.
struct WalkRows {
  const bf16* data;
  int64_t stride;
  int blocks, columns, padded, pitch;
  bool vectors;                 // whether rows are read 16 bytes at a time; then of this thread:
  int first_row, column, rows;  // the first, and how many rows all threads read at once

  __device__ __forceinline__ WalkRows(const Rows<const bf16>& from, int64_t row, int at, int blocks,
                                      int columns, int padded)
      : data(from.data + row * from.stride + at),
        stride(from.stride),
        blocks(blocks),
        columns(columns),
        padded(padded),
        pitch(blocks * padded + kPitchPad),
        vectors(columns == padded && stride % 8 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0) {
    const int per_row = blocks * padded / 8, thread = threadIdx.x;
    rows = blockDim.x / per_row;
    first_row = thread < rows * per_row ? thread / per_row : kWalkRows;
    column = thread % per_row * 8;
  }

  static __device__ __forceinline__ bool in_range(int row, int length) {
    return static_cast<unsigned>(row) < static_cast<unsigned>(length);
  }

  // Rows [row, row + kWalkRows) without waiting; zeros for those below 0 and from `length` on. kVectors: 16
  // bytes at a time.
  template <bool kVectors>
  __device__ __forceinline__ void copy(bf16* to, int row, int length) const {
    if constexpr (kVectors) {
      for (int r = first_row; r < kWalkRows; r += rows) {
        const bool real = in_range(row + r, length);
        copy_async(to + r * pitch + column, data + (real ? row + r : 0) * stride + column, real);
      }
    } else {
      copy_singly(to, data, stride, pitch, blocks, columns, padded, row, length);
    }
  }
};

// Steps' softplus(dt + bias) and decays of one head and a warp's 16 rows: lane r and lane r + 16 hold row r.
struct StepDecays {
  float dt, log;  // log2 of the decay from the step's beginning to the row, the row's included

  // Rows that are not in use have dt 0.
  __device__ __forceinline__ void set(bf16 raw, float bias, float rate, bool used, int lane) {
    dt = used ? softplus_fast(to_float(raw) + bias) : 0.0f;
    log = dt * rate;
#pragma unroll
    for (int step = 1; step < kStepRows; step *= 2) {
      const float other = __shfl_up_sync(0xffffffffu, log, step, kStepRows);
      if (lane % kStepRows >= step) log += other;
    }
  }
};

// Of one head and all rows of a chunk: a lane holds rows 2 lane and 2 lane + 1.
struct ChunkDecays {
  float dt[2], log[2];  // log2 of the decay from the chunk's beginning, the row's included

  __device__ __forceinline__ void set(const float (&raw)[2], const bool (&used)[2], float bias, float rate,
                                      int lane) {
#pragma unroll
    for (int r = 0; r < 2; ++r) dt[r] = used[r] ? softplus_fast(raw[r] + bias) : 0.0f;
    const float second = dt[1] * rate;
    log[1] = dt[0] * rate + second;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const float other = __shfl_up_sync(0xffffffffu, log[1], step);
      if (lane >= step) log[1] += other;
    }
    log[0] = log[1] - second;
  }
};

// x of rows g and g + 8; of rows 2t, 2t + 1, 2t + 8, 2t + 9.
__device__ __forceinline__ void of_rows(float (&to)[2], float x, int lane) {
  to[0] = __shfl_sync(0xffffffffu, x, lane / 4);
  to[1] = __shfl_sync(0xffffffffu, x, lane / 4 + 8);
}
__device__ __forceinline__ void of_columns(float (&to)[4], float x, int lane) {
#pragma unroll
  for (int e = 0; e < 4; ++e) to[e] = __shfl_sync(0xffffffffu, x, lane % 4 * 2 + e % 2 + e / 2 * 8);
}

// The same of step k of a chunk, from x of rows 2 lane and 2 lane + 1 as ChunkDecays has them.
__device__ __forceinline__ void of_chunk_columns(float (&to)[4], const float (&x)[2], int k, int lane) {
#pragma unroll
  for (int i = 0; i < 4; ++i) to[i] = __shfl_sync(0xffffffffu, x[i % 2], 8 * k + lane % 4 + i / 2 * 4);
}

// to[0] and to[1] of column p; kWhole: no column lies behind the last.
template <bool kWhole, class T>
__device__ __forceinline__ void store_two(T* to, int p, int columns, float x, float y) {
  if constexpr (kWhole)
    store_pair(to, 0, 2, x, y);
  else
    store_pair(to - p, p, columns, x, y);
}

// An A of computed numbers, which rounding to bf16 would spoil: A = big + small.
struct WidePair {
  uint32_t big[4], small[4];
  __device__ __forceinline__ void set(int i, float x, float y) {
    big[i] = pack(x, y);
    small[i] = pack(x - __uint_as_float(big[i] << 16), y - __uint_as_float(big[i] & 0xffff0000u));
  }
  __device__ __forceinline__ void clear(int i) { big[i] = small[i] = 0; }
};
__device__ __forceinline__ void mma(float (&c)[4], const WidePair& a, uint32_t b0, uint32_t b1) {
  mma(c, a.small, b0, b1);
  mma(c, a.big, b0, b1);
}
// The transpose of rows loaded by load_b_trans, row k scaled by scale (of_columns).
__device__ __forceinline__ WidePair scaled_transpose(const uint32_t (&rows)[4], const float (&scale)[4]) {
  WidePair a;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t pair = rows[i / 2 + i % 2 * 2];  // k = 2t.. of pairs 0 and 1, 2t + 8.. of the others
    const float x = __uint_as_float(pair << 16), y = __uint_as_float(pair & 0xffff0000u);
    a.set(i, x * scale[i / 2 * 2], y * scale[i / 2 * 2 + 1]);
  }
  return a;
}

// The 8 x 8 tile that lanes hold as rows g, columns 2t and 2t + 1, transposed.
__device__ __forceinline__ uint32_t transposed(uint32_t tile) {
  uint32_t turned;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(tile));
  return turned;
}

// The four warps that walk one head.
__device__ __forceinline__ void head_barrier(int head) {
  asm volatile("bar.sync %0, 128;" ::"r"(head + 1) : "memory");
}

// One head's states in shared memory. A step adds to the state (P x N) by its warp, tile by tile of 8 columns
// of N; warp w carries tile w from step to step and leaves, before each step, what enters it. `added` is free
// again once the states are carried; it may hold more tiles than they need.
template <int N, int kRoom = N / 8>
struct StepStates {
  static constexpr int kTiles = N / 8;
  static constexpr int kPitch = N + kPitchPad;
  float4 added[kSteps][kRoom][32];
  bf16 entering[kSteps][16 * kPitch];  // (P, N)
  float decay[kSteps];                 // of the whole step

  __device__ __forceinline__ void add(int step, const float (&sum)[kTiles][4], float log, int lane) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      added[step][n][lane] = make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
    }
    if (lane == 0) decay[step] = exp2_fast(log);
  }
  // In the order of the walk; state: of rows g and g + 8 of P. f(step, low, high) gets what was left.
  template <bool kForward, class F>
  __device__ __forceinline__ void carry(int tile, float (&state)[4], int lane, const F& f) {
    const int g = lane / 4, column = 8 * tile + lane % 4 * 2;
    float4 more[kSteps];
    float e[kSteps];
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      more[step] = added[step][tile][lane];
      e[step] = decay[step];
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int step = kForward ? i : kSteps - 1 - i;
      const uint32_t low = pack(state[0], state[1]), high = pack(state[2], state[3]);
      *reinterpret_cast<uint32_t*>(entering[step] + g * kPitch + column) = low;
      *reinterpret_cast<uint32_t*>(entering[step] + (g + 8) * kPitch + column) = high;
      f(step, low, high);
      state[0] = e[step] * state[0] + more[step].x;
      state[1] = e[step] * state[1] + more[step].y;
      state[2] = e[step] * state[2] + more[step].z;
      state[3] = e[step] * state[3] + more[step].w;
    }
  }
};

// States kept for the backward pass: (ssd_walk_slots, H, N / 16, 32 lanes, 8), the B operand (k over P) of
// two tiles of 8 columns of N. Steps of a head are this far apart, and the first one of the sequence is here.
template <int N>
__device__ __forceinline__ int64_t kept_stride(const SsdPlan& plan) {
  return static_cast<int64_t>(plan.H) * (16 * N);
}
template <int N>
__device__ __forceinline__ int64_t first_kept(const SsdPlan& plan, const WalkSpan& span, int head) {
  return (span.first_state * plan.H + head) * (16 * N);
}

}  // namespace hax::ops::cuda
