// Backward pass of the convolution. It keeps, beside the last rows, their gradients, which later rows still
// add to; it looks W - 1 rows beyond the strip, recomputes the sums before SiLU, and leaves one partial sum a
// block for the gradients of taps and bias. Registers hold no batch but the one at work: the next ones are on
// their way to shared memory, where each thread finds what it copied itself.
#include "lib/ops/cuda/causal_conv1d.cuh"
#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/tiles.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kStrips = 8;  // of a block, one below the other
constexpr int kThreads = kStrips * kLanes;
constexpr int kBlocks = 4;  // of a multiprocessor, as registers allow
constexpr int kStages = 2;  // batches in shared memory

// The widest vector: all that a batch's copies need is then of a size that shared memory holds kBlocks times.
template <class T>
constexpr int kWide = 8 / sizeof(T);

// The sources that have a thread's channels, at most S. They are looked for before anything is known of the
// strip, which waits for memory.
template <class T, int S>
struct Sources {
  Walk<const T> walk[S];
  __device__ Sources(const ConvUpstream<T>& all, int c) {
    int n = 0;
    for (int s = 0; s < all.count; ++s) {
      const ConvSource<T>& source = all.source[s];
      if (c < source.begin || c >= source.end) continue;
#pragma unroll
      for (int slot = 0; slot < S; ++slot) {
        if (slot == n) {
          walk[slot].at = source.rows.data + (c - source.begin);
          walk[slot].stride = source.rows.stride;
        }
      }
      ++n;
    }
  }
  __device__ void skip(int64_t rows) {
#pragma unroll
    for (int s = 0; s < S; ++s) walk[s].at += rows * walk[s].stride;
  }
};

// V numbers for the thread alone, without waiting; zeros where they are not there, and then `from` may point
// anywhere: it is not read.
template <class T, int V>
__device__ __forceinline__ void copy(Packed<T, V>* to, const T* from, bool there) {
  if constexpr (sizeof(*to) == 8)
    copy_words(to, from, there);
  else if constexpr (sizeof(*to) == 4)
    copy_word(to, from, there);
  else
    *to = there ? load_packed<V>(from) : Packed<T, V>{};
}

template <class T, int W, int V, int S>
struct Batch {
  static constexpr int B = kBatch<W>;
  Packed<T, V> x[B][kThreads], dy[S][B][kThreads];
  // Of the next B rows `left` are there.
  __device__ __forceinline__ void load(Walk<const T>& from, Sources<T, S>& sources, int left) {
    asm volatile("" ::: "memory");  // what was here has been read
    load_column(x, from, left);
#pragma unroll
    for (int s = 0; s < S; ++s) load_column(dy[s], sources.walk[s], sources.walk[s].at ? left : 0);
    commit_copies();
  }

 private:
  __device__ __forceinline__ static void load_column(Packed<T, V> (&to)[B][kThreads], Walk<const T>& from,
                                                     int left) {
#pragma unroll
    for (int i = 0; i < B; ++i) {
      copy(&to[i][threadIdx.x], from.at, i < left);
      from.at += from.stride;
    }
  }
};

template <int W, int V>
struct Gradients {
  float dx[W][V] = {};  // of the last W rows, as in the window
  float taps[W][V] = {}, bias[V] = {};
};

// Rows 0 .. N - 1 of a batch, zeros behind the last in use; kOwn: of the strip. reach: how many rows before
// each count. With row i, row i - (W - 1) of dx is complete, and there are `before` rows of the strip before
// the batch.
template <int N, bool kOwn, class T, int W, int V, int S>
__device__ __forceinline__ void backward_rows(const Batch<T, W, V, S>& in, const uint8_t* reach, int before,
                                              int own, const float (&taps)[W][V], const float (&bias)[V],
                                              Window<W, V>& window, Gradients<W, V>& sums, Walk<T>& to) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int position = reach[before + i];
    window.enter(i, in.x[i][threadIdx.x]);
    Packed<T, V> dy[S];
#pragma unroll
    for (int s = 0; s < S; ++s) dy[s] = in.dy[s][i][threadIdx.x];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float g = dy[0].get(v);
#pragma unroll
      for (int s = 1; s < S; ++s) g += dy[s].get(v);
      const float sum = window.sum(i, v, position, taps, bias[v]);
      const float s = sigmoid(sum);
      g *= s * (1.0f + sum * (1.0f - s));
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
__global__ void __launch_bounds__(kThreads, kBlocks)
    backward_kernel(Layout layout, int channels, Rows<const T> x, const float* __restrict__ weight,
                    const float* __restrict__ bias, const __grid_constant__ ConvUpstream<T> upstream,
                    Rows<T> dx, float* __restrict__ parts) {
  constexpr int B = kBatch<W>, kColumns = kLanes * V;
  __shared__ union alignas(16) Memory {
    __device__ Memory() {}
    Batch<T, W, V, S> batch[kStages];
    float sums[kStrips][(W + 1) * kColumns];
  } shared;
  __shared__ uint8_t reach[kStrips * kMostBatches * B + W];
  Sources<T, S> sources(upstream, Strip<V>::channel());
  const Strip<V> strip(layout, channels, B, W - 1);
  sources.skip(strip.begin);
  Walk<const T> from(x, strip);
  Walk<T> to(dx, strip);
  to.at -= (W - 1) * to.stride;
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage)
    shared.batch[stage].load(from, sources, strip.used - stage * B);
  Window<W, V> window;
  window.load_before(Walk<const T>(x, strip), strip);
  const int first = static_cast<int>(threadIdx.x) / kLanes * strip.rows;  // of the block's rows
  const int64_t in_use = layout.cu_seqlens[layout.batch], begin = strip.begin - first;
  for (int i = threadIdx.x; i < kStrips * strip.rows + W - 1; i += kThreads) {
    reach[i] = begin + i < in_use ? min(layout.position[begin + i], int64_t{W - 1}) : 0;
  }
  const Taps<W, V, kThreads> taps(channels, weight, bias);  // which waits for the block
  Gradients<W, V> sums;
  const int used_own = min(strip.used, strip.rows);
  int r = 0, stage = 0;
  for (; r < used_own; r += B) {
    wait_copies<kStages - 1>();
    backward_rows<B, true>(shared.batch[stage], reach + first, r, used_own, taps.at, taps.bias, window, sums,
                           to);
    shared.batch[stage].load(from, sources, strip.used - r - kStages * B);
    stage = stage + 1 < kStages ? stage + 1 : 0;
  }
  wait_copies<0>();
  backward_rows<W - 1, false>(shared.batch[stage], reach + first, r, used_own, taps.at, taps.bias, window,
                              sums, to);
  store_zeros(dx, strip);

  __syncthreads();
  float* mine = shared.sums[threadIdx.x / kLanes] + threadIdx.x % kLanes * V;
#pragma unroll
  for (int k = 0; k < W; ++k) store_vector<V>(mine + k * kColumns, sums.taps[k]);
  store_vector<V>(mine + W * kColumns, sums.bias);
  __syncthreads();
  float* part = parts + static_cast<int64_t>(blockIdx.y) * (W + 1) * channels;
  for (int i = threadIdx.x; i < (W + 1) * kColumns; i += kThreads) {
    const int c = static_cast<int>(blockIdx.x) * kColumns + i % kColumns;
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < kStrips; ++s) sum += shared.sums[s][i];
    if (c < channels) part[i / kColumns * channels + c] = sum;
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
  int vector = widest_vector<T>(kWidest, shape.channels, {x, {dx.data, dx.stride}});
  for (int s = 0; s < upstream.count; ++s) {
    const ConvSource<T>& source = upstream.source[s];
    vector = std::min({vector, widest_vector<T>(kWidest, source.begin, {source.rows}),
                       widest_vector<T>(kWidest, source.end, {source.rows})});
  }
  const auto launch = [&](auto kernel, int channels_a_lane) {
    kernel<<<cut.grid(shape, channels_a_lane), kThreads, 0, stream>>>(
        layout, static_cast<int>(shape.channels), x, weight, bias, upstream, dx, parts);
  };
  const int most = most_sources(upstream);
  with_width(shape.width, [&](auto width) {
    constexpr int W = decltype(width)::value, V = kWide<T>;
    if (vector < V || most > 4)
      launch(backward_kernel<T, W, 1, kConvSources>, 1);
    else if (most <= 1)
      launch(backward_kernel<T, W, V, 1>, V);
    else if (most == 2)
      launch(backward_kernel<T, W, V, 2>, V);
    else if (most == 3)
      launch(backward_kernel<T, W, V, 3>, V);
    else
      launch(backward_kernel<T, W, V, 4>, V);
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
