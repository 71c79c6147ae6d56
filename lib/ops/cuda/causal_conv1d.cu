// A warp takes kRows rows of 32 or 64 neighbouring channels, V = 1 or 2 a lane, and loads what it needs of
// them at once. The backward pass recomputes the sums before SiLU, looks width - 1 rows ahead, and leaves one
// partial sum a block for the gradients of taps and bias. Tiles that no sequence begins in, which are most,
// take a way without the checks of positions and rows.
#include "lib/ops/cuda/causal_conv1d.h"
#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/vectors.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kRows = 16;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;

// What a warp works on: rows [begin, begin + kRows) and, a lane, channels [c, c + V).
template <int W, int V>
struct Place {
  int64_t begin, used, c;
  bool real;
  int position;  // lane l: of row begin + l; -1 where it is not in use
  // No row of the tile nor of the W - 1 behind it has fewer than W - 1 rows of its sequence before it, all of
  // them are in use, and all lanes have channels.
  bool plain;
  __device__ Place(const Layout& layout, int64_t channels) {
    const int lane = threadIdx.x % 32;
    begin = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32) * kRows;
    used = layout.cu_seqlens[layout.batch];
    c = (static_cast<int64_t>(blockIdx.y) * 32 + lane) * V;
    real = c < channels;
    const int64_t row = begin + lane;
    position = row < used ? static_cast<int>(layout.position[row]) : -1;
    plain = __all_sync(0xffffffffu, real && (lane >= kRows + W - 1 || position >= W - 1));
  }
  __device__ int position_of(int row) const { return __shfl_sync(0xffffffffu, position, row); }
  __device__ bool has(int row) const { return real && begin + row >= 0 && begin + row < used; }
};

template <int W, int V>
struct Taps {
  float at[W][V], bias[V];
  template <class P>
  __device__ Taps(const P& place, const float* weight, const float* shift) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      bias[v] = place.real ? shift[place.c + v] : 0.0f;
#pragma unroll
      for (int k = 0; k < W; ++k) at[k][v] = place.real ? weight[(place.c + v) * W + k] : 0.0f;
    }
  }
};

template <class T, int W, int V, bool kPlain>
__device__ __forceinline__ void forward_tile(const Layout& layout, const Place<W, V>& place, int64_t channels,
                                             Rows<const T> x, const Taps<W, V>& taps, T* y) {
  Packed<T, V> in[kRows + W - 1];  // in[r]: row begin - (W - 1) + r
  const T* from = x.data + (place.begin - (W - 1)) * x.stride + place.c;
#pragma unroll
  for (int r = 0; r < kRows + W - 1; ++r) {
    if (kPlain || place.has(r - (W - 1))) in[r] = *reinterpret_cast<const Packed<T, V>*>(from + r * x.stride);
  }
  T* to = y + place.begin * channels + place.c;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int position = kPlain ? W : place.position_of(r);
    if (!kPlain && (!place.real || place.begin + r >= layout.rows)) continue;
    float out[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float sum = taps.bias[v];
#pragma unroll
      for (int k = 0; k < W; ++k) {
        if (kPlain || position >= W - 1 - k) sum += taps.at[k][v] * to_float(in[r + k].at[v]);
      }
      out[v] = kPlain || place.has(r) ? sum * sigmoid(sum) : 0.0f;
    }
    store_vector<V>(to + r * channels, out);
  }
}

template <class T, int W, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Layout layout, int64_t channels, Rows<const T> x, const float* __restrict__ weight,
                   const float* __restrict__ bias, T* __restrict__ y) {
  const Place<W, V> place(layout, channels);
  const Taps<W, V> taps(place, weight, bias);
  if (place.plain)
    forward_tile<T, W, V, true>(layout, place, channels, x, taps, y);
  else
    forward_tile<T, W, V, false>(layout, place, channels, x, taps, y);
}

template <int W, int V>
struct TapSums {
  float at[W][V] = {}, bias[V] = {};
};

template <class T, int W, int V, bool kPlain>
__device__ __forceinline__ void backward_tile(const Layout& layout, const Place<W, V>& place, Rows<const T> x,
                                              const Taps<W, V>& taps, const ConvUpstream<T>& upstream,
                                              Rows<T> dx, TapSums<W, V>& sums) {
  constexpr int kAhead = kRows + W - 1;  // rows whose gradient reaches ours
  Packed<T, V> in[kAhead + W - 1];       // in[r]: row begin - (W - 1) + r
  float g[kAhead][V] = {};               // row begin + r
  const T* from = x.data + (place.begin - (W - 1)) * x.stride + place.c;
#pragma unroll
  for (int r = 0; r < kAhead + W - 1; ++r) {
    if (kPlain || place.has(r - (W - 1))) in[r] = *reinterpret_cast<const Packed<T, V>*>(from + r * x.stride);
  }
  for (int s = 0; s < upstream.count; ++s) {
    const ConvSource<T>& source = upstream.source[s];
    if (place.c < source.begin || place.c >= source.end) continue;
    const T* at = source.rows.data + place.begin * source.rows.stride + place.c - source.begin;
    Packed<T, V> part[kAhead];
#pragma unroll
    for (int r = 0; r < kAhead; ++r) {
      if (kPlain || place.has(r))
        part[r] = *reinterpret_cast<const Packed<T, V>*>(at + r * source.rows.stride);
    }
#pragma unroll
    for (int r = 0; r < kAhead; ++r) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (kPlain || place.has(r)) g[r][v] += to_float(part[r].at[v]);
      }
    }
  }
  T* to = dx.data + place.begin * dx.stride + place.c;
#pragma unroll
  for (int r = 0; r < kAhead; ++r) {
    const int position = kPlain ? W : place.position_of(r);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float sum = taps.bias[v];
#pragma unroll
      for (int k = 0; k < W; ++k) {
        if (kPlain || position >= W - 1 - k) sum += taps.at[k][v] * to_float(in[r + k].at[v]);
      }
      const float s = sigmoid(sum);
      g[r][v] = kPlain || place.has(r) ? g[r][v] * s * (1.0f + sum * (1.0f - s)) : 0.0f;
      if (r >= kRows) continue;
      sums.bias[v] += g[r][v];
#pragma unroll
      for (int k = 0; k < W; ++k) {
        if (kPlain || (place.has(r) && position >= W - 1 - k))
          sums.at[k][v] += g[r][v] * to_float(in[r + k].at[v]);
      }
    }
    // Row r - k was reached with tap W - 1 - k, if it is of the same sequence; with row r, row r - (W - 1) is
    // complete.
    if (r < W - 1) continue;
    const int own = r - (W - 1);
    float out[V] = {};
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const bool same = kPlain || place.position_of(own + k) >= k;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (same) out[v] += g[own + k][v] * taps.at[W - 1 - k][v];
      }
    }
    if (kPlain || (place.real && place.begin + own < layout.rows)) store_vector<V>(to + own * dx.stride, out);
  }
}

// parts (blocks, W + 1, channels)
template <class T, int W, int V>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Layout layout, int64_t channels, Rows<const T> x, const float* __restrict__ weight,
                    const float* __restrict__ bias, ConvUpstream<T> upstream, Rows<T> dx,
                    float* __restrict__ parts) {
  __shared__ float sums[kWarps][(W + 1) * 32 * V];
  const Place<W, V> place(layout, channels);
  const Taps<W, V> taps(place, weight, bias);
  TapSums<W, V> own;
  if (place.plain)
    backward_tile<T, W, V, true>(layout, place, x, taps, upstream, dx, own);
  else
    backward_tile<T, W, V, false>(layout, place, x, taps, upstream, dx, own);
  float* mine = sums[threadIdx.x / 32] + threadIdx.x % 32 * V;
#pragma unroll
  for (int v = 0; v < V; ++v) {
#pragma unroll
    for (int k = 0; k < W; ++k) mine[k * 32 * V + v] = own.at[k][v];
    mine[W * 32 * V + v] = own.bias[v];
  }
  __syncthreads();
  float* part = parts + static_cast<int64_t>(blockIdx.x) * (W + 1) * channels;
  for (int i = threadIdx.x; i < (W + 1) * 32 * V; i += kThreads) {
    const int64_t c = static_cast<int64_t>(blockIdx.y) * 32 * V + i % (32 * V);
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum += sums[w][i];
    if (c < channels) part[i / (32 * V) * channels + c] = sum;
  }
}

// Two channels a lane where every row begins at a pair.
template <class T>
bool in_pairs(Rows<const T> rows) {
  return rows.stride % 2 == 0 && reinterpret_cast<uintptr_t>(rows.data) % (2 * sizeof(T)) == 0;
}

dim3 grid_of(const Layout& layout, const ConvShape& shape, int channels_a_lane) {
  return {static_cast<unsigned>(ceil_div(layout.rows, kRows * kWarps)),
          static_cast<unsigned>(ceil_div(shape.channels, 32 * channels_a_lane))};
}

std::string shape_text(const Layout& layout, const ConvShape& shape) {
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

}  // namespace

template <class T>
void conv_forward(const Layout& layout, const ConvShape& shape, Rows<const T> x, const float* weight,
                  const float* bias, T* y, cudaStream_t stream) {
  const bool pairs = shape.channels % 2 == 0 && in_pairs(x);
  with_width(shape.width, [&](auto width) {
    constexpr int W = decltype(width)::value;
    if (pairs)
      forward_kernel<T, W, 2>
          <<<grid_of(layout, shape, 2), kThreads, 0, stream>>>(layout, shape.channels, x, weight, bias, y);
    else
      forward_kernel<T, W, 1>
          <<<grid_of(layout, shape, 1), kThreads, 0, stream>>>(layout, shape.channels, x, weight, bias, y);
  });
  check_launch("conv_forward", shape_text(layout, shape));
}

int64_t conv_scratch_bytes(const Layout& layout, const ConvShape& shape) {
  return grid_of(layout, shape, 1).x * (shape.width + 1) * shape.channels *
         static_cast<int64_t>(sizeof(float));
}

template <class T>
void conv_backward(const Layout& layout, const ConvShape& shape, Rows<const T> x, const float* weight,
                   const float* bias, const ConvUpstream<T>& upstream, Rows<T> dx, float* sums, void* scratch,
                   cudaStream_t stream) {
  auto* parts = static_cast<float*>(scratch);
  bool pairs = shape.channels % 2 == 0 && in_pairs(x) && in_pairs<T>({dx.data, dx.stride});
  for (int s = 0; s < upstream.count; ++s) {
    const ConvSource<T>& source = upstream.source[s];
    pairs &= source.begin % 2 == 0 && source.end % 2 == 0 && in_pairs(source.rows);
  }
  with_width(shape.width, [&](auto width) {
    constexpr int W = decltype(width)::value;
    if (pairs)
      backward_kernel<T, W, 2><<<grid_of(layout, shape, 2), kThreads, 0, stream>>>(
          layout, shape.channels, x, weight, bias, upstream, dx, parts);
    else
      backward_kernel<T, W, 1><<<grid_of(layout, shape, 1), kThreads, 0, stream>>>(
          layout, shape.channels, x, weight, bias, upstream, dx, parts);
  });
  check_launch("conv_backward", shape_text(layout, shape));
  column_sums("conv_backward's sums", parts, grid_of(layout, shape, 1).x, (shape.width + 1) * shape.channels,
              sums, stream, {shape.width, shape.channels});
}

#define HAX_INSTANTIATE(T)                                                                                   \
  template void conv_forward<T>(const Layout&, const ConvShape&, Rows<const T>, const float*, const float*,  \
                                T*, cudaStream_t);                                                           \
  template void conv_backward<T>(const Layout&, const ConvShape&, Rows<const T>, const float*, const float*, \
                                 const ConvUpstream<T>&, Rows<T>, float*, void*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
