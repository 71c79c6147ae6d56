// What the selective scan's passes share. Blocks of kThreads work on tiles of kTile rows; a channel's states
// lie in four lanes, S in each.
#pragma once

#include <cmath>

#include "lib/ops/cuda/chunk.cuh"
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/selective_scan.h"
#include "lib/ops/cuda/vectors.cuh"

namespace hax::ops::cuda {

constexpr int kTile = 32;  // rows from one kept state to the next; two tiles are a chunk
constexpr int kThreads = 128;
constexpr int kLanes = 4;          // of a channel
constexpr int kChannels = 64;      // of a block whose lanes hold two channels each
constexpr int kWalkChannels = 32;  // of a block whose lanes hold one

struct ScanPlan {
  Layout layout;
  int channels, N;
  int S;        // states a lane; kLanes * S >= N
  int blocks;   // of kChannels
  bool whole;   // blocks walk whole sequences forward, instead of chunks
  bool paired;  // rows of all inputs may be read in pairs of neighbours
  int64_t chunks;

  __host__ __device__ int width() const { return kLanes * S; }
  __host__ __device__ int64_t state_floats() const { return static_cast<int64_t>(channels) * width(); }
  dim3 grid() const { return {static_cast<unsigned>(chunks), static_cast<unsigned>(blocks)}; }
  std::string text() const {
    return "rows " + std::to_string(layout.rows) + ", channels " + std::to_string(channels) + ", N " +
           std::to_string(N);
  }
};

// Walking whole sequences saves a pass over the rows and pays where this many blocks are busy all the time.
constexpr int64_t kBusyBlocks = 96;

inline ScanPlan scan_plan(const Layout& layout, const ScanShape& shape) {
  if (shape.N < 1 || shape.N > kScanLargestState) {
    throw std::invalid_argument("selective_scan: N " + std::to_string(shape.N) + " has no kernel");
  }
  ScanPlan plan{layout, static_cast<int>(shape.channels), static_cast<int>(shape.N)};
  plan.S = 1;
  while (plan.width() < plan.N) plan.S *= 2;
  plan.blocks = static_cast<int>(ceil_div(shape.channels, kChannels));
  plan.whole = layout.rows * ceil_div(shape.channels, kWalkChannels) >= kBusyBlocks * layout.max_seqlen;
  plan.chunks = chunks_of(layout);
  return plan;
}

// V numbers may be read at once at every V-th column.
template <int V, class T>
bool aligned(const Rows<T>& rows) {
  return rows.stride % V == 0 && reinterpret_cast<uintptr_t>(rows.data) % (V * sizeof(T)) == 0;
}
template <class T>
ScanPlan scan_plan(const Layout& layout, const ScanShape& shape, const ScanInput<T>& in) {
  ScanPlan plan = scan_plan(layout, shape);
  plan.paired = plan.channels % 2 == 0 && plan.N % 2 == 0 && aligned<2>(in.u) && aligned<2>(in.delta) &&
                aligned<2>(in.B) && aligned<2>(in.C);
  return plan;
}

// Two neighbours of a row as one word: what is on its way from memory is not looked into.
template <class T>
struct Pair;
template <>
struct Pair<__nv_bfloat16> {
  uint32_t word;
};
template <>
struct Pair<float> {
  float2 word;
};

// Zeros where it is not `real`, without a branch: loads in a row do not wait for each other.
__device__ __forceinline__ void load_if(bool real, Pair<__nv_bfloat16>& to, const __nv_bfloat16* from) {
  asm volatile(
      "{\n .reg .pred real;\n setp.ne.u32 real, %2, 0;\n mov.b32 %0, 0;\n"
      " @real ld.global.nc.b32 %0, [%1];\n}"
      : "=r"(to.word)
      : "l"(from), "r"(static_cast<uint32_t>(real)));
}
__device__ __forceinline__ void load_if(bool real, Pair<float>& to, const float* from) {
  asm volatile(
      "{\n .reg .pred real;\n setp.ne.u32 real, %3, 0;\n mov.f32 %0, 0f00000000;\n mov.f32 %1, 0f00000000;\n"
      " @real ld.global.nc.v2.f32 {%0, %1}, [%2];\n}"
      : "=f"(to.word.x), "=f"(to.word.y)
      : "l"(from), "r"(static_cast<uint32_t>(real)));
}

__device__ __forceinline__ float2 to_floats(const Pair<__nv_bfloat16>& two) {
  return make_float2(__uint_as_float(two.word << 16), __uint_as_float(two.word & 0xffff0000u));
}
__device__ __forceinline__ float2 to_floats(const Pair<float>& two) { return two.word; }

template <class T>
__device__ __forceinline__ Pair<T> to_pair(float x, float y);
template <>
__device__ __forceinline__ Pair<__nv_bfloat16> to_pair(float x, float y) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(x, y);
  return {*reinterpret_cast<const uint32_t*>(&two)};
}
template <>
__device__ __forceinline__ Pair<float> to_pair(float x, float y) {
  return {make_float2(x, y)};
}

// What one of kThreads threads copies of a tile (kRows, 2 * kAcross): every kStep-th row of one pair of
// columns.
template <int kRows, int kAcross>
struct TilePairs {
  static constexpr int kStep = kThreads / kAcross, kCount = (kRows + kStep - 1) / kStep;
  int t, p;  // of the first

  __device__ __forceinline__ explicit TilePairs(int thread) : t(thread / kAcross), p(thread % kAcross) {}

  // pairs of rows begin, begin + 1, .. of a matrix, whose tile begins at column `first`; zeros in rows
  // outside [from, to) and from column `columns` on.
  template <class T>
  __device__ __forceinline__ void load(Pair<T> (&pairs)[kCount], Rows<const T> rows, int64_t begin, int from,
                                       int to, int first, int columns, bool paired) const {
    const int column = first + 2 * p;
    const T* at = rows.data + (begin + t) * rows.stride + column;
    const int64_t step = kStep * rows.stride;
    const unsigned height = to - from;
    const int real = min(columns - column, 2);
    if (paired) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        load_if(real > 0 && static_cast<unsigned>(t + i * kStep - from) < height, pairs[i], at + i * step);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        float x = 0.0f, y = 0.0f;
        if (static_cast<unsigned>(t + i * kStep - from) < height) {
          if (real > 0) x = to_float(at[i * step]);
          if (real > 1) y = to_float(at[i * step + 1]);
        }
        pairs[i] = to_pair<T>(x, y);
      }
    }
  }

  // Rows [from, to) of a contiguous matrix, from what tile (kRows, kAcross) holds.
  template <class T>
  __device__ __forceinline__ void store(T* matrix, int64_t begin, int from, int to, int first, int columns,
                                        bool paired, const Pair<T>* tile) const {
    const int column = first + 2 * p;
    T* at = matrix + (begin + t) * columns + column;
#pragma unroll
    for (int i = 0; i < kCount; ++i, at += kStep * columns) {
      const int row = t + i * kStep;
      if (row < from || row >= to || column >= columns) continue;
      const Pair<T> two = tile[row * kAcross + p];
      if (paired) {
        *reinterpret_cast<Pair<T>*>(at) = two;
      } else {
        const float2 both = to_floats(two);
        at[0] = from_float<T>(both.x);
        if (column + 1 < columns) at[1] = from_float<T>(both.y);
      }
    }
  }

  // Zeros in the first rows of a tile of a contiguous matrix.
  template <class T>
  __device__ __forceinline__ void clear(T* matrix, int64_t begin, int rows, int first, int columns) const {
    for (int row = t; row < rows; row += kStep) {
#pragma unroll
      for (int column = first + 2 * p; column < first + 2 * p + 2; ++column) {
        if (column < columns) matrix[(begin + row) * columns + column] = from_float<T>(0.0f);
      }
    }
  }

  // In fp32, to a tile.
  template <class T>
  __device__ __forceinline__ void store(float* tile, const Pair<T> (&pairs)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int row = t + i * kStep;
      if (kRows % kStep == 0 || row < kRows) {
        reinterpret_cast<float2*>(tile)[row * kAcross + p] = to_floats(pairs[i]);
      }
    }
  }

  // The biases of its two channels.
  __device__ __forceinline__ float2 bias(const float* dt_bias, int first, int channels) const {
    const int c = first + 2 * p;
    return make_float2(c < channels ? dt_bias[c] : 0.0f, c + 1 < channels ? dt_bias[c + 1] : 0.0f);
  }
};

// S neighbouring floats.
template <int S>
__device__ __forceinline__ void load(float (&to)[S], const float* from) {
  constexpr int V = S < 4 ? S : 4;
#pragma unroll
  for (int i = 0; i < S; i += V) load_vector<V>(to + i, from + i);
}
template <int S>
__device__ __forceinline__ void store(float* to, const float (&from)[S]) {
  constexpr int V = S < 4 ? S : 4;
#pragma unroll
  for (int i = 0; i < S; i += V) store_vector<V>(to + i, from + i);
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

// Sums of four values over four lanes whose numbers q differ in the bits of kLane and 2 * kLane; lane q
// returns the sum of value q.
template <int kLane>
__device__ __forceinline__ float sum_of_lanes(const float (&v)[4], int q) {
  const bool upper = q & 2, odd = q & 1;
  float a = upper ? v[2] : v[0], b = upper ? v[3] : v[1];
  a += __shfl_xor_sync(0xffffffffu, upper ? v[0] : v[2], 2 * kLane);
  b += __shfl_xor_sync(0xffffffffu, upper ? v[1] : v[3], 2 * kLane);
  return (odd ? b : a) + __shfl_xor_sync(0xffffffffu, odd ? a : b, kLane);
}

// What is added to the exponent of a step's decay: a sequence's first step keeps nothing of the state.
__device__ __forceinline__ float restart(uint32_t starts, int t) {
  return starts >> t & 1 ? -INFINITY : 0.0f;
}

// Where a lane that holds two channels stands: lane = half * 16 + q * 4 + pair % 4. A warp's channels are
// neighbours, and the four state groups q of a pair lie four lanes apart.
struct PairLane {
  int warp, half, q, pair;  // pair: of the block's channels
  __device__ __forceinline__ PairLane()
      : warp(threadIdx.x / 32),
        half(threadIdx.x / 16 % 2),
        q(threadIdx.x / 4 % 4),
        pair(warp * 8 + half * 4 + static_cast<int>(threadIdx.x % 4)) {}
};

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

}  // namespace hax::ops::cuda
