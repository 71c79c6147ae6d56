// A warp takes kRows rows of 32 or 64 neighbouring channels, V = 1 or 2 a lane, and loads what it needs of
// them at once. The backward pass recomputes the sums before SiLU, looks width - 1 rows ahead, and leaves one
// partial sum a block for the gradients of taps and bias, which a second kernel adds up in the order of the
// blocks.
#include "lib/ops/cuda/causal_conv1d.h"
#include "lib/ops/cuda/convert.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kRows = 16;
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;

// V neighbouring channels.
template <int V>
struct Channels {
  float at[V] = {};
};
template <int V>
__device__ __forceinline__ Channels<V> load(const float* p) {
  Channels<V> x;
  if constexpr (V == 2) {
    const float2 pair = *reinterpret_cast<const float2*>(p);
    x.at[0] = pair.x;
    x.at[1] = pair.y;
  } else {
    x.at[0] = *p;
  }
  return x;
}
template <int V>
__device__ __forceinline__ Channels<V> load(const __nv_bfloat16* p) {
  Channels<V> x;
  if constexpr (V == 2) {
    const float2 pair = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(p));
    x.at[0] = pair.x;
    x.at[1] = pair.y;
  } else {
    x.at[0] = to_float(*p);
  }
  return x;
}
template <int V>
__device__ __forceinline__ void store(float* p, const Channels<V>& x) {
  if constexpr (V == 2)
    *reinterpret_cast<float2*>(p) = make_float2(x.at[0], x.at[1]);
  else
    *p = x.at[0];
}
template <int V>
__device__ __forceinline__ void store(__nv_bfloat16* p, const Channels<V>& x) {
  if constexpr (V == 2)
    *reinterpret_cast<__nv_bfloat162*>(p) = __floats2bfloat162_rn(x.at[0], x.at[1]);
  else
    *p = from_float<__nv_bfloat16>(x.at[0]);
}

// What a warp works on: rows [begin, begin + kRows) and, a lane, channels [c, c + V).
template <int V>
struct Place {
  int64_t begin, used, c;
  bool real;
  int position;  // lane l: of row begin + l
  __device__ Place(const Layout& layout, int64_t channels) {
    begin = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32) * kRows;
    used = layout.cu_seqlens[layout.batch];
    c = (static_cast<int64_t>(blockIdx.y) * 32 + threadIdx.x % 32) * V;
    real = c < channels;
    const int64_t row = begin + threadIdx.x % 32;
    position = row < used ? static_cast<int>(layout.position[row]) : 0;
  }
  __device__ int position_of(int row) const { return __shfl_sync(0xffffffffu, position, row); }
};

template <class T, int W, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Layout layout, int64_t channels, Rows<const T> x, const float* __restrict__ weight,
                   const float* __restrict__ bias, T* __restrict__ y) {
  const Place<V> place(layout, channels);
  Channels<V> in[kRows + W - 1], shift;  // in[r]: row begin - (W - 1) + r
  float taps[W][V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (place.real) shift.at[v] = bias[place.c + v];
#pragma unroll
    for (int k = 0; k < W; ++k) taps[k][v] = place.real ? weight[(place.c + v) * W + k] : 0.0f;
  }
#pragma unroll
  for (int r = 0; r < kRows + W - 1; ++r) {
    const int64_t row = place.begin - (W - 1) + r;
    if (place.real && row >= 0 && row < place.used) in[r] = load<V>(x.data + row * x.stride + place.c);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int position = place.position_of(r);
    const int64_t row = place.begin + r;
    if (!place.real || row >= layout.rows) continue;
    Channels<V> out;
    if (row < place.used) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        float sum = shift.at[v];
#pragma unroll
        for (int k = 0; k < W; ++k) sum += position >= W - 1 - k ? taps[k][v] * in[r + k].at[v] : 0.0f;
        out.at[v] = sum * sigmoid(sum);
      }
    }
    store<V>(y + row * channels + place.c, out);
  }
}

// parts (blocks, W + 1, channels)
template <class T, int W, int V>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Layout layout, int64_t channels, Rows<const T> x, const float* __restrict__ weight,
                    const float* __restrict__ bias, Rows<const T> dy, T* __restrict__ dx,
                    float* __restrict__ parts) {
  __shared__ float sums[kWarps][(W + 1) * 32 * V];
  const Place<V> place(layout, channels);
  constexpr int kAhead = kRows + W - 1;              // rows whose gradient reaches ours
  Channels<V> in[kAhead + W - 1], g[kAhead], shift;  // in[r]: row begin - (W - 1) + r;  g[r]: row begin + r
  float taps[W][V], dtaps[W][V] = {}, dshift[V] = {};
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (place.real) shift.at[v] = bias[place.c + v];
#pragma unroll
    for (int k = 0; k < W; ++k) taps[k][v] = place.real ? weight[(place.c + v) * W + k] : 0.0f;
  }
#pragma unroll
  for (int r = 0; r < kAhead + W - 1; ++r) {
    const int64_t row = place.begin - (W - 1) + r;
    if (place.real && row >= 0 && row < place.used) in[r] = load<V>(x.data + row * x.stride + place.c);
  }
#pragma unroll
  for (int r = 0; r < kAhead; ++r) {
    if (place.real && place.begin + r < place.used)
      g[r] = load<V>(dy.data + (place.begin + r) * dy.stride + place.c);
  }
#pragma unroll
  for (int r = 0; r < kAhead; ++r) {
    const int position = place.position_of(r);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float sum = shift.at[v];
#pragma unroll
      for (int k = 0; k < W; ++k) sum += position >= W - 1 - k ? taps[k][v] * in[r + k].at[v] : 0.0f;
      const float s = sigmoid(sum), gradient = g[r].at[v] * s * (1.0f + sum * (1.0f - s));
      g[r].at[v] = gradient;
      if (r >= kRows) continue;
      dshift[v] += gradient;
#pragma unroll
      for (int k = 0; k < W; ++k) dtaps[k][v] += position >= W - 1 - k ? gradient * in[r + k].at[v] : 0.0f;
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    // Row r reached row r + k with tap W - 1 - k, if no other sequence began in between.
    Channels<V> out;
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const bool same = place.position_of(r + k) >= k;
#pragma unroll
      for (int v = 0; v < V; ++v) out.at[v] += same ? g[r + k].at[v] * taps[W - 1 - k][v] : 0.0f;
    }
    const int64_t row = place.begin + r;
    if (place.real && row < layout.rows) store<V>(dx + row * channels + place.c, out);
  }
  float* own = sums[threadIdx.x / 32] + threadIdx.x % 32 * V;
#pragma unroll
  for (int v = 0; v < V; ++v) {
#pragma unroll
    for (int k = 0; k < W; ++k) own[k * 32 * V + v] = dtaps[k][v];
    own[W * 32 * V + v] = dshift[v];
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

// One warp an output: lane l adds blocks l, l + 32, ...; then the lanes are added as a tree.
__global__ void sum_kernel(const float* __restrict__ parts, int64_t blocks, int64_t channels, int64_t width,
                           float* __restrict__ dweight, float* __restrict__ dbias) {
  const int64_t output = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  const int64_t outputs = (width + 1) * channels;
  if (output >= outputs) return;
  float sum = 0.0f;
  for (int64_t b = threadIdx.x % 32; b < blocks; b += 32) sum += parts[b * outputs + output];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 != 0) return;
  const int64_t k = output / channels, c = output % channels;
  if (k < width)
    dweight[c * width + k] = sum;
  else
    dbias[c] = sum;
}

// Two channels a lane where every row begins at a pair.
template <class T>
bool in_pairs(const ConvShape& shape, Rows<const T> rows) {
  return shape.channels % 2 == 0 && rows.stride % 2 == 0 &&
         reinterpret_cast<uintptr_t>(rows.data) % (2 * sizeof(T)) == 0;
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
    HAX_WIDTH(5)
    HAX_WIDTH(6)
    HAX_WIDTH(7)
    HAX_WIDTH(8)
#undef HAX_WIDTH
  }
  throw std::invalid_argument("conv: width " + std::to_string(width) + " has no kernel");
}

}  // namespace

template <class T>
void conv_forward(const Layout& layout, const ConvShape& shape, Rows<const T> x, const float* weight,
                  const float* bias, T* y, cudaStream_t stream) {
  with_width(shape.width, [&](auto width) {
    constexpr int W = decltype(width)::value;
    if (in_pairs(shape, x))
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
                   const float* bias, Rows<const T> dy, T* dx, float* dweight, float* dbias, void* scratch,
                   cudaStream_t stream) {
  auto* parts = static_cast<float*>(scratch);
  with_width(shape.width, [&](auto width) {
    constexpr int W = decltype(width)::value;
    if (in_pairs(shape, x) && in_pairs(shape, dy))
      backward_kernel<T, W, 2><<<grid_of(layout, shape, 2), kThreads, 0, stream>>>(
          layout, shape.channels, x, weight, bias, dy, dx, parts);
    else
      backward_kernel<T, W, 1><<<grid_of(layout, shape, 1), kThreads, 0, stream>>>(
          layout, shape.channels, x, weight, bias, dy, dx, parts);
  });
  check_launch("conv_backward", shape_text(layout, shape));
  constexpr int kSumWarps = 4;
  const int64_t outputs = (shape.width + 1) * shape.channels;
  sum_kernel<<<static_cast<unsigned>(ceil_div(outputs, kSumWarps)), kSumWarps * 32, 0, stream>>>(
      parts, grid_of(layout, shape, 1).x, shape.channels, shape.width, dweight, dbias);
  check_launch("conv_backward's sums", shape_text(layout, shape));
}

#define HAX_INSTANTIATE(T)                                                                                   \
  template void conv_forward<T>(const Layout&, const ConvShape&, Rows<const T>, const float*, const float*,  \
                                T*, cudaStream_t);                                                           \
  template void conv_backward<T>(const Layout&, const ConvShape&, Rows<const T>, const float*, const float*, \
                                 Rows<const T>, T*, float*, float*, void*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
