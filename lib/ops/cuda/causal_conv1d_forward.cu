// Forward pass of the convolution: a strip's rows in order.
#include "lib/ops/cuda/causal_conv1d.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kStrips = 16;  // of a block, one below the other
constexpr int kBlocks = 3;   // of a multiprocessor, as registers allow

template <class T, int W, int V>
__global__ void __launch_bounds__(kStrips* kLanes, kBlocks)
    forward_kernel(Layout layout, int channels, int rows, Rows<const T> x, const float* __restrict__ weight,
                   const float* __restrict__ bias, T* __restrict__ y) {
  constexpr int B = kBatch<W>;
  const Strip<V> strip(layout, channels, rows, 0);
  Walk<const T> from(x, strip);
  Walk<T> to(Rows<T>{y, channels}, strip);
  const int64_t* position = layout.position + strip.begin;
  Window<W, V> window;
  window.load_before(from, strip);
  Packed<T, V> next[B] = {};
  int next_position[B] = {};
  load_rows(next, from, strip.used);
  load_positions(next_position, position, strip.used);
  const Taps<W, V, kStrips * kLanes> taps(channels, weight, bias);
  for (int left = strip.used; left > 0; left -= B) {
    Packed<T, V> in[B];
    int at[B];
#pragma unroll
    for (int i = 0; i < B; ++i) {
      in[i] = next[i];
      at[i] = next_position[i];
    }
    position += B;
    load_rows(next, from, left - B);
    load_positions(next_position, position, left - B);
#pragma unroll
    for (int i = 0; i < B; ++i) {
      window.enter(i, in[i]);
      float out[V];
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const float sum = window.sum(i, v, at[i], taps.at, taps.bias[v]);
        out[v] = sum * sigmoid(sum);
      }
      if (i < left) store_vector<V>(to.at, out);
      to.at += to.stride;
    }
  }
  store_zeros<T, V>(y + (strip.begin + strip.used) * channels + strip.c, channels, strip.own - strip.used);
}

}  // namespace

template <class T>
void conv_forward(const Layout& layout, const ConvShape& shape, Rows<const T> x, const float* weight,
                  const float* bias, T* y, cudaStream_t stream) {
  const Cut cut(layout, shape, kStrips, kBlocks * kMultiprocessors);
  const auto launch = [&](auto kernel, int channels_a_lane) {
    kernel<<<cut.grid(shape, channels_a_lane), kStrips * kLanes, 0, stream>>>(
        layout, static_cast<int>(shape.channels), cut.rows, x, weight, bias, y);
  };
  const int vector = widest_vector<T>(shape.channels, {x});
  with_width(shape.width, [&](auto width) {
    constexpr int W = decltype(width)::value;
    if (vector == 4)
      launch(forward_kernel<T, W, 4>, 4);
    else if (vector == 2)
      launch(forward_kernel<T, W, 2>, 2);
    else
      launch(forward_kernel<T, W, 1>, 1);
  });
  check_launch("conv_forward", conv_text(layout, shape));
}

#define HAX_INSTANTIATE(T)                                                                                  \
  template void conv_forward<T>(const Layout&, const ConvShape&, Rows<const T>, const float*, const float*, \
                                T*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
