// What the SSD kernels share inside a block: rows in shared memory, steps and decays, and the kernel that
// sums a chunk's rows into a state.
#pragma once

#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/mma.cuh"
#include "lib/ops/cuda/ssd_plan.h"
#include "lib/ops/cuda/ssd_states.h"

namespace hax::ops::cuda {

constexpr int kPad = 8;  // elements behind each row in shared memory: fewer bank conflicts

// to (rows, blocks * padded + kPad) = `used` rows of blocks * columns; zeros behind them and behind each
// block's columns. Without waiting (tiles.cuh).
template <class T>
__device__ __forceinline__ void copy_rows(T* to, const T* from, int64_t stride, int rows, int used,
                                          int blocks, int columns, int padded) {
  constexpr int kVector = 16 / sizeof(T);
  const int width = blocks * padded, to_stride = width + kPad;
  if (columns == padded && stride % kVector == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
    const int vectors = width / kVector, together = blockDim.x / vectors, thread = threadIdx.x;
    const int column = thread % vectors * kVector;
    for (int row = thread < together * vectors ? thread / vectors : rows; row < rows; row += together) {
      copy_async(to + row * to_stride + column, from + (row < used ? row * stride + column : 0), row < used);
    }
    return;
  }
  for (int i = threadIdx.x; i < rows * width; i += blockDim.x) {
    const int row = i / width, column = i - row * width;
    const int block = column / padded, inside = column - block * padded;
    const bool there = row < used && inside < columns;
    to[row * to_stride + column] =
        there ? from[row * stride + block * columns + inside] : from_float<T>(0.0f);
  }
}

// A state (P_tile, N_tile) in shared memory: N_tile + kPad to a row.
template <class T>
__device__ __forceinline__ void copy_state(T* to, const SsdPlan& plan, const T* states, int64_t chunk,
                                           int h) {
  copy_rows(to, states + (chunk * plan.H + h) * plan.state_size(), plan.N_tile, plan.P_tile, plan.P_tile, 1,
            plan.N_tile, plan.N_tile);
}

// Of one head. The sum over steps i of dt_i A log2(e), from the chunk's beginning on, is high + low:
// differences of two of them keep fp32's digits however far the sum has run.
struct Decays {
  float dt[kChunk], high[kChunk], low[kChunk];

  // log2 of the decay from row j to row i.
  __device__ __forceinline__ float between(int i, int j) const {
    return (high[i] - high[j]) + (low[i] - low[j]);
  }
  // Of the decay from the chunk's beginning to row i, row i's included.
  __device__ __forceinline__ float from_start(int i) const { return exp2_fast(high[i] + low[i]); }
  __device__ __forceinline__ float to_end(int j) const { return exp2_fast(between(kChunk - 1, j)); }
};

// By one warp. dt points to the chunk's first row of the head. Rows that are not in use have step 0.
template <class T>
__device__ __forceinline__ void set_decays(Decays& decays, const T* dt, int64_t stride, float bias, float A,
                                           int used) {
  const int lane = threadIdx.x % 32, row = 2 * lane;
  const float first = row < used ? softplus(to_float(dt[row * stride]) + bias) : 0.0f;
  const float second = row + 1 < used ? softplus(to_float(dt[(row + 1) * stride]) + bias) : 0.0f;
  // fp32's digits outlast a difference of sums of 64 steps by enough for bf16.
  using Sum = std::conditional_t<std::is_same_v<T, float>, double, float>;
  const Sum rate = static_cast<Sum>(A) * static_cast<Sum>(1.4426950408889634);
  const Sum last = second * rate;
  Sum sum = first * rate + last;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const Sum other = __shfl_up_sync(0xffffffffu, sum, step);
    if (lane >= step) sum += other;
  }
  const auto set = [&](int i, float step, Sum reached) {
    decays.dt[i] = step;
    decays.high[i] = static_cast<float>(reached);
    decays.low[i] = static_cast<float>(reached - decays.high[i]);
  };
  set(row, first, sum - last);
  set(row + 1, second, sum);
}

template <class T>
__device__ __forceinline__ void set_all_decays(Decays* decays, const SsdPlan& plan, const SsdInput<T>& in,
                                               const ChunkSpan& span, int first_head) {
  for (int i = threadIdx.x / 32; i < plan.heads; i += blockDim.x / 32) {
    const int h = first_head + i;
    set_decays(decays[i], in.dt.data + span.begin * in.dt.stride + h, in.dt.stride, in.dt_bias[h], in.A[h],
               span.used);
  }
}

// What a chunk adds to the state that leaves it (forward), sum_j w_j dt_j x_j B_j^T over the tail's rows, w_j
// the decay to the chunk's end; or to the gradient of the state that entered it (backward), sum_i e_i dy_i
// C_i^T, e_i the decay from its beginning. added (chunks, H, P_tile, N_tile); whole (chunks, H): the decay of
// all rows.
template <class T, int P, SsdDirection D>
__global__ void __launch_bounds__(128, sizeof(T) == 2 && P == 16 ? 6 : 1)
    ssd_added_kernel(SsdPlan plan, SsdInput<T> in, Rows<const T> rows, float* __restrict__ added,
                     float* __restrict__ whole) {
  extern __shared__ uint4 shared[];
  const ChunkSpan span = chunk_span(plan.layout, blockIdx.x);
  if (D == SsdDirection::forward ? !span.leaves : span.entered() == 0) return;
  const int N = plan.N_tile, first_head = blockIdx.y * plan.heads;
  const int group = first_head / (plan.H / plan.G);
  const int row_stride = plan.heads * P + kPad, key_stride = N + kPad;
  T* keys = reinterpret_cast<T*>(shared);  // B or C
  T* values = keys + kChunk * key_stride;  // x or dy
  Decays* decays = reinterpret_cast<Decays*>(values + kChunk * row_stride);
  const Rows<const T> from = D == SsdDirection::forward ? in.B : in.C;
  copy_rows(keys, from.data + span.begin * from.stride + group * plan.N, from.stride, kChunk, span.used, 1,
            plan.N, N);
  copy_rows(values, rows.data + span.begin * rows.stride + first_head * plan.P, rows.stride, kChunk,
            span.used, plan.heads, plan.P, P);
  commit_copies();
  set_all_decays(decays, plan, in, span, first_head);
  wait_copies<0>();
  __syncthreads();

  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int i = threadIdx.x / 32; i < plan.heads; i += 4) {
    const int64_t slot = static_cast<int64_t>(blockIdx.x) * plan.H + first_head + i;
    if (lane == 0) whole[slot] = decays[i].from_start(kChunk - 1);
    // The transposed rows, scaled: (P, kChunk).
    WideA<T> a[P / 16][kChunk / 16];
#pragma unroll
    for (int k = 0; k < kChunk / 16; ++k) {
      float scale[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = 16 * k + 2 * t + e % 2 + e / 2 * 8;
        scale[e] = D == SsdDirection::forward
                       ? (row >= span.tail() ? decays[i].dt[row] * decays[i].to_end(row) : 0.0f)
                       : (row < span.entered() ? decays[i].from_start(row) : 0.0f);
      }
#pragma unroll
      for (int m = 0; m < P / 16; ++m) {
        const T* at = values + (16 * k + 2 * t) * row_stride + i * P + 16 * m + g;
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
          const T* from_pair = at + (pair / 2 * 8) * row_stride + pair % 2 * 8;
          a[m][k].set(pair, to_float(from_pair[0]) * scale[pair / 2 * 2],
                      to_float(from_pair[row_stride]) * scale[pair / 2 * 2 + 1]);
        }
      }
    }
    float* out = added + slot * plan.state_size();
    for (int n = 0; n < N; n += 16) {
      float sum[2][P / 16][4] = {};
#pragma unroll
      for (int k = 0; k < kChunk / 16; ++k) {
        const auto b = load_two_b_transposed(keys + 16 * k * key_stride + n, key_stride, lane);
#pragma unroll
        for (int m = 0; m < P / 16; ++m) mma(sum[0][m], sum[1][m], a[m][k], b);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int m = 0; m < P / 16; ++m) {
          const float(&own)[4] = sum[half][m];
          float* at = out + (16 * m + g) * N + n + 8 * half + 2 * t;
          *reinterpret_cast<float2*>(at) = make_float2(own[0], own[1]);
          *reinterpret_cast<float2*>(at + 8 * N) = make_float2(own[2], own[3]);
        }
      }
    }
  }
}

// One thread carries one element of a sequence's state from chunk to chunk. Forward: states of chunk c is the
// state that enters it. Backward: the gradient of the state that leaves it.
template <class T, SsdDirection D>
__global__ void __launch_bounds__(256)
    ssd_carry_kernel(SsdPlan plan, const float* __restrict__ added, const float* __restrict__ whole,
                     T* __restrict__ states) {
  const int64_t element = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  const int64_t all = plan.H * plan.state_size();
  if (element >= all) return;
  const int64_t h = element / plan.state_size();
  const int64_t first = plan.layout.cu_seqlens[blockIdx.y] / kChunk;
  const int64_t last = (plan.layout.cu_seqlens[blockIdx.y + 1] - 1) / kChunk;
  float state = 0.0f;
  if (D == SsdDirection::forward) {
#pragma unroll 8
    for (int64_t c = first; c < last; ++c) {
      state = whole[c * plan.H + h] * state + added[c * all + element];
      states[(c + 1) * all + element] = from_float<T>(state);
    }
  } else {
#pragma unroll 8
    for (int64_t c = last; c > first; --c) {
      const float decay = c < last ? whole[c * plan.H + h] : 0.0f;
      state = decay * state + added[c * all + element];
      states[(c - 1) * all + element] = from_float<T>(state);
    }
  }
}

// added and whole: scratch. rows: x or dy.
template <class T>
int64_t ssd_carry_floats(const SsdPlan& plan) {
  if (sizeof(T) == 2 && ssd_walks_states(plan)) return 0;
  return plan.chunks * plan.H * (plan.state_size() + 1);
}

template <class T, SsdDirection D>
void ssd_carry(const SsdPlan& plan, const SsdInput<T>& in, Rows<const T> rows, float* scratch, T* states,
               cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (ssd_walks_states(plan)) return ssd_walk_states<D>(plan, in, rows, states, stream);
  }
  float *added = scratch, *whole = scratch + plan.chunks * plan.H * plan.state_size();
  const int64_t elements = kChunk * (plan.N_tile + kPad + plan.heads * plan.P_tile + kPad);
  const int64_t bytes = elements * sizeof(T) + plan.heads * sizeof(Decays);
  with_p_tile(plan, [&](auto P) {
    const auto kernel = ssd_added_kernel<T, decltype(P)::value, D>;
    allow_shared_memory(kernel, bytes);
    kernel<<<plan.grid(), 128, bytes, stream>>>(plan, in, rows, added, whole);
  });
  check_launch("ssd_added", plan.text());
  const dim3 grid(static_cast<unsigned>(ceil_div(plan.H * plan.state_size(), 256)),
                  static_cast<unsigned>(plan.layout.batch));
  ssd_carry_kernel<T, D><<<grid, 256, 0, stream>>>(plan, added, whole, states);
  check_launch("ssd_carry", plan.text());
}

}  // namespace hax::ops::cuda
