// What both passes of the convolution share. A thread walks down a strip of rows with V neighbouring
// channels, kBatch rows at a time, whose loads are all on their way before the first is used, and keeps the
// last W rows in registers. Of a row at position p of its sequence min(p, W - 1) rows before it count, which
// is all that sequences need.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "lib/ops/cuda/causal_conv1d.h"
#include "lib/ops/cuda/vectors.cuh"

namespace hax::ops::cuda {

constexpr int kLanes = 16;  // threads side by side: kLanes * V channels
constexpr int kMultiprocessors = 132;
constexpr int kMostBatches = 16;  // of a strip

// Rows loaded at once: a multiple of the W rows in registers, so that these never move.
template <int W>
constexpr int kBatch = W == 3 ? 3 : 4;

// What a thread works on: rows [begin, begin + own) and V channels from c on.
template <int V>
struct Strip {
  int64_t begin;
  int c;
  int own;   // rows to write
  int used;  // rows in use, of its own and `ahead` more
  __device__ Strip(const Layout& layout, int channels, int rows, int ahead) {
    begin = (static_cast<int64_t>(blockIdx.y) * (blockDim.x / kLanes) + threadIdx.x / kLanes) * rows;
    c = (static_cast<int>(blockIdx.x) * kLanes + static_cast<int>(threadIdx.x) % kLanes) * V;
    const int64_t in_use = layout.cu_seqlens[layout.batch];
    own = c < channels ? static_cast<int>(max(min(layout.rows - begin, int64_t{rows}), int64_t{0})) : 0;
    used = own > 0 ? static_cast<int>(max(min(in_use - begin, int64_t{rows + ahead}), int64_t{0})) : 0;
  }
};

// A column of packed numbers, walked downwards.
template <class T>
struct Walk {
  T* at;
  int64_t stride;
  template <int V>
  __device__ Walk(Rows<T> rows, const Strip<V>& strip, int64_t first = 0)
      : at(rows.data + strip.begin * rows.stride + strip.c - first), stride(rows.stride) {}
  __device__ Walk() : at(nullptr), stride(0) {}
};

// The next N rows, of which `left` are there; the others keep what they hold.
template <int N, class T, int V>
__device__ __forceinline__ void load_rows(Packed<T, V> (&to)[N], Walk<const T>& from, int left) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (i < left) to[i] = load_packed<V>(from.at);
    from.at += from.stride;
  }
}
template <int N>
__device__ __forceinline__ void load_positions(int (&to)[N], const int64_t* from, int left) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (i < left) to[i] = static_cast<int>(from[i]);
  }
}

// The taps and the bias of a thread's channels.
template <int W, int V, int kThreads>
struct Taps {
  float at[W][V], bias[V];
  __device__ Taps(int channels, const float* weight, const float* shift) {
    __shared__ __align__(16) float staged[W + 1][kLanes * V];
    const int first = static_cast<int>(blockIdx.x) * kLanes * V;
    constexpr int kRounds = (kLanes * V * W + kThreads - 1) / kThreads;
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const int i = round * kThreads + static_cast<int>(threadIdx.x), c = i / W;
      if (c < kLanes * V) staged[i % W][c] = first + c < channels ? weight[first * W + i] : 0.0f;
    }
    const int i = static_cast<int>(threadIdx.x);
    static_assert(kLanes * V <= kThreads);
    if (i < kLanes * V) staged[W][i] = first + i < channels ? shift[first + i] : 0.0f;
    __syncthreads();
    const int own = i % kLanes * V;
#pragma unroll
    for (int k = 0; k < W; ++k) load_vector<V>(at[k], &staged[k][own]);
    load_vector<V>(bias, &staged[W][own]);
  }
};

// The last W rows: row r lies at r % W.
template <int W, int V>
struct Window {
  float x[W][V] = {};
  // The W - 1 rows before a strip, as far as there are any.
  template <class T>
  __device__ void load_before(const Walk<const T>& rows, const Strip<V>& strip) {
#pragma unroll
    for (int r = 1; r < W; ++r) {
      if (strip.used > 0 && strip.begin >= r) load_vector<V>(x[W - r], rows.at - r * rows.stride);
    }
  }
  template <class T>
  __device__ void enter(int r, const Packed<T, V>& row) {
#pragma unroll
    for (int v = 0; v < V; ++v) x[r % W][v] = row.get(v);
  }
  // Row r's sum before SiLU, at `position` of its sequence.
  __device__ float sum(int r, int v, int position, const float (&taps)[W][V], float bias) const {
    float sum = bias;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      if (position >= k) sum += taps[W - 1 - k][v] * x[(r + W - k) % W][v];
    }
    return sum;
  }
};

template <class T, int V>
__device__ __forceinline__ void store_zeros(T* to, int64_t stride, int rows) {
  const float zeros[V] = {};
  for (int r = 0; r < rows; ++r) store_vector<V>(to + r * stride, zeros);
}

constexpr int kWidest = 4;  // channels of a lane

// The most channels, at most kWidest, that every row may be cut into.
template <class T>
int widest_vector(int64_t channels, std::initializer_list<Rows<const T>> all) {
  for (int V = kWidest; V > 1; V /= 2) {
    bool fits = channels % V == 0;
    for (const auto& rows : all)
      fits &= rows.stride % V == 0 && reinterpret_cast<uintptr_t>(rows.data) % (V * sizeof(T)) == 0;
    if (fits) return V;
  }
  return 1;
}

// How the rows are cut, the same for all widths of vectors: into strips as long as keep a GPU busy at once,
// up to kMostBatches.
struct Cut {
  int rows;         // of a strip
  unsigned blocks;  // of `strips` strips
  Cut(const Layout& layout, const ConvShape& shape, int strips, int64_t at_once) {
    const int64_t slabs = ceil_div(shape.channels, kLanes * kWidest), batch = shape.width == 3 ? 3 : 4;
    const int64_t wanted = std::max<int64_t>(1, at_once / slabs) * strips;
    rows = static_cast<int>(
        std::clamp<int64_t>(ceil_div(ceil_div(layout.rows, wanted), batch), 1, kMostBatches) * batch);
    blocks = static_cast<unsigned>(ceil_div(layout.rows, int64_t{rows} * strips));
  }
  dim3 grid(const ConvShape& shape, int channels_a_lane) const {
    return {static_cast<unsigned>(ceil_div(shape.channels, kLanes * channels_a_lane)), blocks};
  }
};

inline std::string conv_text(const Layout& layout, const ConvShape& shape) {
  return "rows " + std::to_string(layout.rows) + ", channels " + std::to_string(shape.channels) + ", width " +
         std::to_string(shape.width);
}

// Calls f with the width as a compile-time constant.
template <class F>
void with_width(int64_t width, const F& f) {
  switch (width) {
#define HAX_WIDTH(W) \
  case W:            \
    return f(std::integral_constant<int, W>());
    HAX_WIDTH(1)
    HAX_WIDTH(2)
    HAX_WIDTH(3)
    HAX_WIDTH(4)
#undef HAX_WIDTH
  }
  throw std::invalid_argument("conv: width " + std::to_string(width) + " has no kernel");
}

}  // namespace hax::ops::cuda
