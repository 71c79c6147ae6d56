// A warp a row, each lane N pairs of neighbouring features in registers. In the backward pass a block walks
// its share of the rows and leaves one partial sum of dweight, added up by a second kernel in block order.
#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/rms_norm.h"

#include <type_traits>

namespace hax::ops::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxBlocks = 1056;  // of the backward pass: 8 a multiprocessor

__device__ __forceinline__ float2 load_pair(const float* p) { return *reinterpret_cast<const float2*>(p); }
__device__ __forceinline__ float2 load_pair(const __nv_bfloat16* p) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(p));
}
__device__ __forceinline__ void store_pair(float* p, float2 x) { *reinterpret_cast<float2*>(p) = x; }
__device__ __forceinline__ void store_pair(__nv_bfloat16* p, float2 x) {
  *reinterpret_cast<__nv_bfloat162*>(p) = __floats2bfloat162_rn(x.x, x.y);
}

template <class T>
__device__ __forceinline__ float2 as_stored(float2 x) {
  if constexpr (std::is_same_v<T, float>) return x;
  return __bfloat1622float2(__floats2bfloat162_rn(x.x, x.y));
}

template <class T, int N>
__device__ __forceinline__ void load_row(float2 (&u)[N], Rows<const T> x, int64_t row, int d, int lane) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int c = 2 * (lane + 32 * i);
    u[i] = c < d ? load_pair(x.data + row * x.stride + c) : make_float2(0.0f, 0.0f);
  }
}

template <int N>
__device__ __forceinline__ float sum_of_squares(const float2 (&u)[N]) {
  float square = 0.0f;
#pragma unroll
  for (int i = 0; i < N; ++i) square += u[i].x * u[i].x + u[i].y * u[i].y;
  return warp_sum(square);
}

template <int N, class X, class Y>
__global__ void __launch_bounds__(kWarps * 32)
    forward_kernel(int64_t rows, int d, float eps, const int64_t* __restrict__ index, Rows<const X> x,
                   Rows<const Y> h, const float* __restrict__ weight, X* __restrict__ sum,
                   Y* __restrict__ y) {
  const int lane = threadIdx.x % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  const int64_t from = index ? index[row] : row;
  float2 u[N] = {};
  if (from >= 0) load_row(u, x, from, d, lane);
  if (h.data && from >= 0) {
    float2 added[N];
    load_row(added, h, from, d, lane);
#pragma unroll
    for (int i = 0; i < N; ++i) u[i] = as_stored<X>(make_float2(u[i].x + added[i].x, u[i].y + added[i].y));
  }
  if (h.data || index) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int c = 2 * (lane + 32 * i);
      if (c < d) store_pair(sum + row * d + c, u[i]);
    }
  }
  const float scale = rsqrtf(sum_of_squares(u) / static_cast<float>(d) + eps);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int c = 2 * (lane + 32 * i);
    if (c >= d) continue;
    const float2 w = make_float2(weight[c], weight[c + 1]);
    store_pair(y + row * d + c, make_float2(u[i].x * scale * w.x, u[i].y * scale * w.y));
  }
}

// parts (blocks, d). With r = 1 / rms: du = r (w dy) - u r^3 mean(u w dy), and dsum where it is not null.
template <int N, class X, class Y>
__global__ void __launch_bounds__(kWarps * 32)
    backward_kernel(int64_t rows, int d, float eps, const int64_t* __restrict__ index, Rows<const X> x,
                    const float* __restrict__ weight, Rows<const Y> dy, Rows<const X> dsum,
                    X* __restrict__ dx, Y* __restrict__ dh, float* __restrict__ parts) {
  extern __shared__ float shared[];  // (kWarps, d)
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float2 w[N], dw[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int c = 2 * (lane + 32 * i);
    dw[i] = make_float2(0.0f, 0.0f);
    w[i] = c < d ? make_float2(weight[c], weight[c + 1]) : make_float2(0.0f, 0.0f);
  }
  const float mean_of = 1.0f / static_cast<float>(d);
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp; row < rows;
       row += static_cast<int64_t>(gridDim.x) * kWarps) {
    const int64_t to = index ? index[row] : row;
    if (to < 0) continue;
    float2 u[N], g[N];
    load_row(u, x, row, d, lane);
    load_row(g, dy, row, d, lane);
    const float scale = rsqrtf(sum_of_squares(u) * mean_of + eps);
    float dot = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      dw[i].x += g[i].x * u[i].x * scale;
      dw[i].y += g[i].y * u[i].y * scale;
      g[i].x *= w[i].x;
      g[i].y *= w[i].y;
      dot += g[i].x * u[i].x + g[i].y * u[i].y;
    }
    const float pull = warp_sum(dot) * mean_of * scale * scale * scale;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int c = 2 * (lane + 32 * i);
      if (c >= d) continue;
      float2 du = make_float2(g[i].x * scale - u[i].x * pull, g[i].y * scale - u[i].y * pull);
      if (dsum.data) {
        const float2 other = load_pair(dsum.data + row * dsum.stride + c);
        du = make_float2(du.x + other.x, du.y + other.y);
      }
      store_pair(dx + to * d + c, du);
      if (dh) store_pair(dh + to * d + c, du);
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int c = 2 * (lane + 32 * i);
    if (c < d) store_pair(shared + warp * d + c, dw[i]);
  }
  __syncthreads();
  for (int c = threadIdx.x; c < d; c += blockDim.x) {
    float sum = 0.0f;
    for (int k = 0; k < kWarps; ++k) sum += shared[k * d + c];
    parts[static_cast<int64_t>(blockIdx.x) * d + c] = sum;
  }
}

int64_t backward_blocks(const NormShape& shape) {
  const int64_t blocks = ceil_div(shape.rows, kWarps * 8);
  return blocks < kMaxBlocks ? blocks : kMaxBlocks;
}

std::string shape_text(const NormShape& shape) {
  return "rows " + std::to_string(shape.rows) + ", d " + std::to_string(shape.d);
}

// f(N): pairs a lane.
template <class F>
void with_pairs(int64_t d, const F& f) {
  if (d <= 64) return f(std::integral_constant<int, 1>());
  if (d <= 128) return f(std::integral_constant<int, 2>());
  if (d <= 256) return f(std::integral_constant<int, 4>());
  if (d <= 512) return f(std::integral_constant<int, 8>());
  if (d <= 1024) return f(std::integral_constant<int, 16>());
  f(std::integral_constant<int, 32>());
}

}  // namespace

template <class X, class Y>
void norm_forward(const NormShape& shape, const int64_t* index, Rows<const X> x, Rows<const Y> h,
                  const float* weight, X* sum, Y* y, cudaStream_t stream) {
  with_pairs(shape.d, [&](auto n) {
    forward_kernel<decltype(n)::value, X, Y>
        <<<static_cast<unsigned>(ceil_div(shape.rows, kWarps)), kWarps * 32, 0, stream>>>(
            shape.rows, static_cast<int>(shape.d), shape.eps, index, x, h, weight, sum, y);
  });
  check_launch("norm_forward", shape_text(shape));
}

int64_t norm_parts_floats(const NormShape& shape) { return backward_blocks(shape) * shape.d; }

template <class X, class Y>
void norm_backward(const NormShape& shape, const int64_t* index, Rows<const X> x, const float* weight,
                   Rows<const Y> dy, Rows<const X> dsum, X* dx, Y* dh, float* parts, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(backward_blocks(shape));
  const int d = static_cast<int>(shape.d);
  with_pairs(shape.d, [&](auto n) {
    backward_kernel<decltype(n)::value, X, Y>
        <<<blocks, kWarps * 32, kWarps * shape.d * sizeof(float), stream>>>(
            shape.rows, d, shape.eps, index, x, weight, dy, dsum, dx, dh, parts);
  });
  check_launch("norm_backward", shape_text(shape));
}

void norm_sums(const NormShape& shape, const float* parts, float* dweight, cudaStream_t stream) {
  column_sums("norm_backward's sums", parts, backward_blocks(shape), shape.d, dweight, stream);
}

#define HAX_INSTANTIATE(X, Y)                                                                      \
  template void norm_forward<X, Y>(const NormShape&, const int64_t*, Rows<const X>, Rows<const Y>, \
                                   const float*, X*, Y*, cudaStream_t);                            \
  template void norm_backward<X, Y>(const NormShape&, const int64_t*, Rows<const X>, const float*, \
                                    Rows<const Y>, Rows<const X>, X*, Y*, float*, cudaStream_t);
HAX_INSTANTIATE(float, float)
HAX_INSTANTIATE(float, __nv_bfloat16)
HAX_INSTANTIATE(__nv_bfloat16, __nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
