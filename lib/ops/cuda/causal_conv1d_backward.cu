// Backward pass of the convolution. It keeps, beside the last rows, their gradients, which later rows still
// add to; it looks W - 1 rows beyond the strip, recomputes the sums before SiLU, and leaves one partial sum a
// block for the gradients of taps and bias.
#include "lib/ops/cuda/causal_conv1d.cuh"
#include "lib/ops/cuda/column_sums.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kStrips = 8;  // of a block, one below the other
constexpr int kBlocks = 3;  // of a multiprocessor, as registers allow

// The sources that have a thread's channels, at most S.
template <class T, int V, int S>
struct Sources {
  Walk<const T> walk[S];
  __device__ Sources(const ConvUpstream<T>& all, const Strip<V>& strip) {
    int n = 0;
    for (int s = 0; s < all.count; ++s) {
      const ConvSource<T>& source = all.source[s];
      if (strip.c < source.begin || strip.c >= source.end) continue;
#pragma unroll
      for (int slot = 0; slot < S; ++slot) {
        if (slot == n) walk[slot] = Walk<const T>(source.rows, strip, source.begin);
      }
      ++n;
    }
  }
};

template <class T, int W, int V, int S>
struct Loaded {
  static constexpr int B = kBatch<W>;
  Packed<T, V> x[B] = {}, dy[S][B] = {};
  int position[B] = {};
  __device__ void load(Walk<const T>& from, Sources<T, V, S>& sources, const int64_t* positions, int left) {
    load_rows(x, from, left);
#pragma unroll
    for (int s = 0; s < S; ++s) load_rows(dy[s], sources.walk[s], sources.walk[s].at ? left : 0);
    load_positions(position, positions, left);
  }
};

template <int W, int V>
struct Gradients {
  float dx[W][V] = {};  // of the last W rows, as in the window
  float taps[W][V] = {}, bias[V] = {};
};

// Rows 0 .. N - 1 of a batch, of which `left` are in use; kOwn: of the strip. With row i, row i - (W - 1) of
// dx is complete, and there are `before` rows of the strip before the batch.
template <int N, bool kOwn, class T, int W, int V, int S>
__device__ __forceinline__ void backward_rows(const Loaded<T, W, V, S>& in, int left, int before, int own,
                                              const float (&taps)[W][V], const float (&bias)[V],
                                              Window<W, V>& window, Gradients<W, V>& sums, Walk<T>& to) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int position = in.position[i];
    window.enter(i, in.x[i]);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float g = 0.0f;
#pragma unroll
      for (int s = 0; s < S; ++s) g += in.dy[s][i].get(v);
      const float sum = window.sum(i, v, position, taps, bias[v]);
      const float s = sigmoid(sum);
      g *= s * (1.0f + sum * (1.0f - s));
      if (i >= left) g = 0.0f;
      if (kOwn) sums.bias[v] += g;
      sums.dx[i % W][v] = 0.0f;
#pragma unroll
      for (int k = 0; k < W; ++k) {
        if (position < k) continue;
        if (kOwn) sums.taps[W - 1 - k][v] += g * window.x[(i + W - k) % W][v];
        sums.dx[(i + W - k) % W][v] += g * taps[W - 1 - k][v];
      }
    }
    const int complete = before + i - (W - 1);
    if (complete >= 0 && complete < own) store_vector<V>(to.at, sums.dx[(i + 1) % W]);
    to.at += to.stride;
  }
}

// parts (blocks of rows, W + 1, channels)
template <class T, int W, int V, int S>
__global__ void __launch_bounds__(kStrips* kLanes, kBlocks)
    backward_kernel(Layout layout, int channels, int rows, Rows<const T> x, const float* __restrict__ weight,
                    const float* __restrict__ bias, const __grid_constant__ ConvUpstream<T> upstream,
                    Rows<T> dx, float* __restrict__ parts) {
  constexpr int B = kBatch<W>, kThreads = kStrips * kLanes;
  const Strip<V> strip(layout, channels, rows, W - 1);
  Walk<const T> from(x, strip);
  Walk<T> to(dx, strip);
  to.at -= (W - 1) * to.stride;
  Sources<T, V, S> sources(upstream, strip);
  const int64_t* positions = layout.position + strip.begin;
  Window<W, V> window;
  window.load_before(from, strip);
  Loaded<T, W, V, S> next;
  next.load(from, sources, positions, strip.used);
  const Taps<W, V, kThreads> taps(channels, weight, bias);
  Gradients<W, V> sums;
  const int used_own = min(strip.used, rows);
  int r = 0;
  for (; r < used_own; r += B) {
    positions += B;
    if constexpr (S == 1) {
      const Loaded<T, W, V, S> in = next;
      next.load(from, sources, positions, strip.used - r - B);
      backward_rows<B, true>(in, strip.used - r, r, used_own, taps.at, taps.bias, window, sums, to);
    } else {  // registers for one batch alone
      backward_rows<B, true>(next, strip.used - r, r, used_own, taps.at, taps.bias, window, sums, to);
      next.load(from, sources, positions, strip.used - r - B);
    }
  }
  backward_rows<W - 1, false>(next, strip.used - r, r, used_own, taps.at, taps.bias, window, sums, to);
  store_zeros<T, V>(dx.data + (strip.begin + used_own) * dx.stride + strip.c, dx.stride,
                    strip.own - used_own);

  __shared__ __align__(16) float shared[kStrips][(W + 1) * kLanes * V];
  float* mine = shared[threadIdx.x / kLanes] + threadIdx.x % kLanes * V;
#pragma unroll
  for (int k = 0; k < W; ++k) store_vector<V>(mine + k * kLanes * V, sums.taps[k]);
  store_vector<V>(mine + W * kLanes * V, sums.bias);
  __syncthreads();
  float* part = parts + static_cast<int64_t>(blockIdx.y) * (W + 1) * channels;
  for (int i = threadIdx.x; i < (W + 1) * kLanes * V; i += kThreads) {
    const int c = static_cast<int>(blockIdx.x) * kLanes * V + i % (kLanes * V);
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < kStrips; ++s) sum += shared[s][i];
    if (c < channels) part[i / (kLanes * V) * channels + c] = sum;
  }
}

Cut cut_of(const Layout& layout, const ConvShape& shape) {
  return {layout, shape, kStrips, kBlocks * kMultiprocessors};
}

// Most sources that one channel has.
template <class T>
int most_sources(const ConvUpstream<T>& upstream) {
  int most = 0;
  for (int s = 0; s < upstream.count; ++s) {
    int n = 0;
    for (int other = 0; other < upstream.count; ++other)
      n += upstream.source[other].begin <= upstream.source[s].begin &&
           upstream.source[s].begin < upstream.source[other].end;
    most = std::max(most, n);
  }
  return most;
}

}  // namespace

int64_t conv_parts_floats(const Layout& layout, const ConvShape& shape) {
  return cut_of(layout, shape).blocks * (shape.width + 1) * shape.channels;
}

template <class T>
void conv_backward(const Layout& layout, const ConvShape& shape, Rows<const T> x, const float* weight,
                   const float* bias, const ConvUpstream<T>& upstream, Rows<T> dx, float* parts,
                   cudaStream_t stream) {
  const Cut cut = cut_of(layout, shape);
  int vector = widest_vector<T>(shape.channels, {x, {dx.data, dx.stride}});
  for (int s = 0; s < upstream.count; ++s) {
    const ConvSource<T>& source = upstream.source[s];
    vector = std::min(
        {vector, widest_vector<T>(source.begin, {source.rows}), widest_vector<T>(source.end, {source.rows})});
  }
  const auto launch = [&](auto kernel, int channels_a_lane) {
    kernel<<<cut.grid(shape, channels_a_lane), kStrips * kLanes, 0, stream>>>(
        layout, static_cast<int>(shape.channels), cut.rows, x, weight, bias, upstream, dx, parts);
  };
  const int most = most_sources(upstream);
  with_width(shape.width, [&](auto width) {
    constexpr int W = decltype(width)::value;
    if (vector == 4 && most <= 1)
      launch(backward_kernel<T, W, 4, 1>, 4);
    else if (vector == 4 && most <= 4)
      launch(backward_kernel<T, W, 4, 4>, 4);
    else if (vector >= 2 && most <= 4)
      launch(backward_kernel<T, W, 2, 4>, 2);
    else
      launch(backward_kernel<T, W, 1, kConvSources>, 1);
  });
  check_launch("conv_backward", conv_text(layout, shape));
}

void conv_sums(const Layout& layout, const ConvShape& shape, const float* parts, float* sums,
               cudaStream_t stream) {
  column_sums("conv_backward's sums", parts, cut_of(layout, shape).blocks, (shape.width + 1) * shape.channels,
              sums, stream, {shape.width, shape.channels});
}

#define HAX_INSTANTIATE(T)                                                                                   \
  template void conv_backward<T>(const Layout&, const ConvShape&, Rows<const T>, const float*, const float*, \
                                 const ConvUpstream<T>&, Rows<T>, float*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
