// What the selective scan's passes share. A block takes a chunk and kChannels channels; a channel's states
// lie in four neighbouring lanes, S in each. What chunks add to the state is summed first, carried along each
// sequence, and then every chunk is walked from its own state; the gradient of the state goes the same way
// from the end to the beginning.
#pragma once

#include "lib/ops/cuda/chunk.cuh"
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/selective_scan.h"

namespace hax::ops::cuda {

constexpr int kChannels = 64;
constexpr int kLanes = 4;  // of a channel
constexpr int kThreads = kChannels * kLanes;

struct ScanPlan {
  Layout layout;
  int channels, N;
  int S;       // states a lane; kLanes * S >= N
  int blocks;  // of channels
  int64_t chunks;

  __host__ __device__ int width() const { return kLanes * S; }
  __host__ __device__ int64_t state_floats() const { return static_cast<int64_t>(channels) * width(); }
  dim3 grid() const { return {static_cast<unsigned>(chunks), static_cast<unsigned>(blocks)}; }
  std::string text() const {
    return "rows " + std::to_string(layout.rows) + ", channels " + std::to_string(channels) + ", N " +
           std::to_string(N);
  }
};

inline ScanPlan scan_plan(const Layout& layout, const ScanShape& shape) {
  if (shape.N < 1 || shape.N > kScanLargestState) {
    throw std::invalid_argument("selective_scan: N " + std::to_string(shape.N) + " has no kernel");
  }
  ScanPlan plan{layout, static_cast<int>(shape.channels), static_cast<int>(shape.N)};
  plan.S = 1;
  while (plan.width() < plan.N) plan.S *= 2;
  plan.blocks = static_cast<int>(ceil_div(shape.channels, kChannels));
  plan.chunks = chunks_of(layout);
  return plan;
}

// to (kChunk, kChannels) = f(value); `used` rows, zeros elsewhere.
template <class To, class T, class F>
__device__ __forceinline__ void copy_channels(To* to, Rows<const T> from, const ChunkSpan& span, int first,
                                              int channels, const F& f) {
  const int c = threadIdx.x % kChannels;
  const bool there = first + c < channels;
  const T* at = from.data + span.begin * from.stride + first + c;
#pragma unroll 4
  for (int t = threadIdx.x / kChannels; t < kChunk; t += kThreads / kChannels) {
    to[t * kChannels + c] = there && t < span.used ? f(at[t * from.stride], c) : To(0.0f);
  }
}

// to (kChunk, width) = rows of N, zeros elsewhere.
template <class T>
__device__ __forceinline__ void copy_states(float* to, Rows<const T> from, const ChunkSpan& span, int N,
                                            int width) {
  for (int i = threadIdx.x; i < kChunk * width; i += kThreads) {
    const int t = i / width, n = i - t * width;
    to[i] = t < span.used && n < N ? to_float(from.data[(span.begin + t) * from.stride + n]) : 0.0f;
  }
}

template <class T>
__device__ __forceinline__ void copy_steps(float* dt, const ScanPlan& plan, const ScanInput<T>& in,
                                           const ChunkSpan& span, int first) {
  const int own = first + threadIdx.x % kChannels;
  const float bias = own < plan.channels ? in.dt_bias[own] : 0.0f;
  copy_channels(dt, in.delta, span, first, plan.channels,
                [&](T x, int) { return softplus(to_float(x) + bias); });
}

// S neighbouring floats.
template <int S>
__device__ __forceinline__ void load(float (&to)[S], const float* from) {
  if constexpr (S % 4 == 0) {
#pragma unroll
    for (int i = 0; i < S; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(from + i);
      to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < S; ++i) to[i] = from[i];
  }
}
template <int S>
__device__ __forceinline__ void store(float* to, const float (&from)[S]) {
  if constexpr (S % 4 == 0) {
#pragma unroll
    for (int i = 0; i < S; i += 4) {
      *reinterpret_cast<float4*>(to + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < S; ++i) to[i] = from[i];
  }
}

// The rates A log2(e) of a lane's states; 0 where there is none.
template <int S>
__device__ __forceinline__ void load_rates(float (&rate)[S], const float* A, const ScanPlan& plan,
                                           int channel, int q) {
#pragma unroll
  for (int s = 0; s < S; ++s) {
    const int n = q * S + s;
    rate[s] = channel < plan.channels && n < plan.N ? A[channel * plan.N + n] * kLog2E : 0.0f;
  }
}

// Sums of four values over the four lanes of a channel; lane q returns the sum of value q.
__device__ __forceinline__ float sum_of_lanes(const float (&v)[4], int q) {
  const bool upper = q & 2, odd = q & 1;
  float a = upper ? v[2] : v[0], b = upper ? v[3] : v[1];
  a += __shfl_xor_sync(0xffffffffu, upper ? v[0] : v[2], 2);
  b += __shfl_xor_sync(0xffffffffu, upper ? v[1] : v[3], 2);
  return (odd ? b : a) + __shfl_xor_sync(0xffffffffu, odd ? a : b, 1);
}

// One thread carries one state of a sequence from chunk to chunk: to the state that enters each of them, or
// the gradient of the state that leaves it.
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
  float state = 0.0f;
  if (!kBackward) {
#pragma unroll 8
    for (int64_t c = first; c < last; ++c) {
      const float decay = c > first ? exp2_fast(rate * total[c * plan.channels + channel]) : 0.0f;
      state = decay * state + added[c * all + element];
      states[(c + 1) * all + element] = state;
    }
  } else {
#pragma unroll 8
    for (int64_t c = last; c > first; --c) {
      const float decay = c < last ? exp2_fast(rate * total[c * plan.channels + channel]) : 0.0f;
      state = decay * state + added[c * all + element];
      states[(c - 1) * all + element] = state;
    }
  }
}

// Calls f with S as a compile-time constant.
template <class F>
void with_states(const ScanPlan& plan, const F& f) {
  switch (plan.S) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 4:
      return f(std::integral_constant<int, 4>());
    default:
      return f(std::integral_constant<int, 8>());
  }
}

inline dim3 carry_grid(const ScanPlan& plan) {
  return {static_cast<unsigned>(ceil_div(plan.state_floats(), 256)),
          static_cast<unsigned>(plan.layout.batch)};
}

// Floats of added and total.
inline int64_t carry_floats(const ScanPlan& plan) {
  return plan.chunks * (plan.state_floats() + plan.channels);
}

}  // namespace hax::ops::cuda
