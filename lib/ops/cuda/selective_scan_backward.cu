// Backward: the gradients of the states at the chunks' ends, and then each chunk's gradients. Inside a chunk
// the state is kept every few steps, and the steps between are recomputed on the way back.
#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/selective_scan_chunk.cuh"

namespace hax::ops::cuda {
namespace {

// Sums of V values over a warp's eight channels. Returns where the lane's V / 8 sums begin; below eight
// values, lanes share sums.
template <int V>
__device__ __forceinline__ int sum_of_channels(float (&v)[V], int lane) {
  int begin = 0, size = V;
#pragma unroll
  for (int mask = 16; mask >= 4; mask /= 2) {
    if (size == 1) {
      v[0] += __shfl_xor_sync(0xffffffffu, v[0], mask);
      continue;
    }
    size /= 2;
    const bool upper = lane & mask;
#pragma unroll
    for (int i = 0; i < size; ++i) {
      const float sent = upper ? v[i] : v[size + i], kept = upper ? v[size + i] : v[i];
      v[i] = kept + __shfl_xor_sync(0xffffffffu, sent, mask);
    }
    begin += upper ? size : 0;
  }
  return begin;
}

// The same for the gradient of the state that entered the chunk.
template <class T, int S>
__global__ void __launch_bounds__(kThreads)
    added_gradient_kernel(ScanPlan plan, ScanInput<T> in, Rows<const T> upstream, float* __restrict__ added,
                          float* __restrict__ total) {
  __shared__ __align__(16) float dt[kChunk * kChannels], C[kChunk * kLanes * S];
  __shared__ T dy[kChunk * kChannels];
  const ChunkSpan span = chunk_span(plan.layout, blockIdx.x);
  if (span.entered() == 0) return;
  const int first = blockIdx.y * kChannels, c = threadIdx.x / kLanes, q = threadIdx.x % kLanes;
  copy_steps(dt, plan, in, span, first);
  copy_channels(dy, upstream, span, first, plan.channels, [](T x, int) { return x; });
  copy_states(C, in.C, span, plan.N, kLanes * S);
  float rate[S], gradient[S] = {}, sum = 0.0f;
  load_rates(rate, in.A, plan, first + c, q);
  __syncthreads();
#pragma unroll 4
  for (int t = span.entered() - 1; t >= 0; --t) {
    float read[S];
    load(read, C + (t * kLanes + q) * S);
    const float step = dt[t * kChannels + c], up = to_float(dy[t * kChannels + c]);
    sum += step;
#pragma unroll
    for (int s = 0; s < S; ++s) gradient[s] = exp2_fast(step * rate[s]) * (gradient[s] + up * read[s]);
  }
  if (first + c >= plan.channels) return;
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * plan.channels + first + c;
  store(added + slot * plan.width() + q * S, gradient);
  if (q == 0) total[slot] = sum;
}

// Steps between two kept states.
template <int S>
constexpr int kSteps = S > 4 ? 4 : 8;

template <class T, int S>
struct GradientTiles {
  float dt[kChunk * kChannels];  // then ddelta
  float B[kChunk * kLanes * S], C[kChunk * kLanes * S];
  float kept[kChunk / kSteps<S>][kThreads * S];
  float keys[kThreads / 32][kSteps<S>][2 * kLanes * S];  // of each warp: dB and dC, summed over its channels
  T u[kChunk * kChannels];                               // then du
  T dy[kChunk * kChannels];
};

// keys (blocks, rows, 2, N): dB and dC, summed over a block's channels. by_channel (chunks, N + 2, channels):
// dA, dD and ddt_bias of the chunk.
template <class T, int S>
__global__ void __launch_bounds__(kThreads, S <= 4 ? 2 : 1)
    gradient_kernel(ScanPlan plan, ScanInput<T> in, Rows<const T> upstream, const float* __restrict__ states,
                    const float* __restrict__ dstates, T* __restrict__ du, T* __restrict__ ddelta,
                    float* __restrict__ keys, float* __restrict__ by_channel) {
  extern __shared__ uint4 shared[];
  auto& tiles = *reinterpret_cast<GradientTiles<T, S>*>(shared);
  constexpr int kWidth = kLanes * S, kBlock = kSteps<S>;
  const ChunkSpan span = chunk_span(plan.layout, blockIdx.x);
  const int first = blockIdx.y * kChannels, c = threadIdx.x / kLanes, q = threadIdx.x % kLanes;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const bool there = first + c < plan.channels;
  copy_steps(tiles.dt, plan, in, span, first);
  copy_channels(tiles.u, in.u, span, first, plan.channels, [](T x, int) { return x; });
  copy_channels(tiles.dy, upstream, span, first, plan.channels, [](T x, int) { return x; });
  copy_states(tiles.B, in.B, span, plan.N, kWidth);
  copy_states(tiles.C, in.C, span, plan.N, kWidth);
  float rate[S], h[S] = {}, g[S] = {}, dA[S] = {}, dD = 0.0f, dbias = 0.0f;
  load_rates(rate, in.A, plan, first + c, q);
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * plan.channels + first + c;
  if (there && span.entered() > 0) load(h, states + slot * kWidth + q * S);
  if (there && span.leaves) load(g, dstates + slot * kWidth + q * S);
  const float D = there ? in.D[first + c] : 0.0f;
  __syncthreads();

  // The state in front of step t becomes that behind it; `decay` receives the step's decays, 0 at a start.
  const auto advance = [&](float(&state)[S], float(&decay)[S], int t) {
    float b[S];
    load(b, tiles.B + (t * kLanes + q) * S);
    const float step = tiles.dt[t * kChannels + c], scale = step * to_float(tiles.u[t * kChannels + c]);
    const bool starts = span.starts_at(t);
#pragma unroll
    for (int s = 0; s < S; ++s) {
      decay[s] = starts ? 0.0f : exp2_fast(step * rate[s]);
      state[s] = decay[s] * state[s] + scale * b[s];
    }
  };
  const int blocks = (span.used + kBlock - 1) / kBlock;
  for (int block = 0; block < blocks; ++block) {
    store(tiles.kept[block] + threadIdx.x * S, h);
    if (block + 1 == blocks) break;
    float decay[S];
#pragma unroll
    for (int k = 0; k < kBlock; ++k) advance(h, decay, block * kBlock + k);
  }
  for (int block = blocks - 1; block >= 0; --block) {
    const int t0 = block * kBlock;
    float behind[kBlock + 1][S], decay[kBlock][S];  // behind[k]: the state in front of step k
    load(behind[0], tiles.kept[block] + threadIdx.x * S);
#pragma unroll
    for (int k = 0; k < kBlock; ++k) {
#pragma unroll
      for (int s = 0; s < S; ++s) behind[k + 1][s] = behind[k][s];
      advance(behind[k + 1], decay[k], t0 + k);
    }
#pragma unroll
    for (int quad = kBlock - kLanes; quad >= 0; quad -= kLanes) {
      float of_decay[kLanes], of_input[kLanes];
#pragma unroll
      for (int k = kLanes - 1; k >= 0; --k) {
        const int t = t0 + quad + k;
        float b[S], read[S], sums[2 * S];
        load(b, tiles.B + (t * kLanes + q) * S);
        load(read, tiles.C + (t * kLanes + q) * S);
        const float step = tiles.dt[t * kChannels + c], up = to_float(tiles.dy[t * kChannels + c]);
        const float scale = step * to_float(tiles.u[t * kChannels + c]);
        float rates = 0.0f, input = 0.0f;
#pragma unroll
        for (int s = 0; s < S; ++s) {
          g[s] += up * read[s];
          sums[s] = g[s] * scale;
          sums[S + s] = up * behind[quad + k + 1][s];
          input += g[s] * b[s];
          g[s] *= decay[quad + k][s];
          const float exponent = g[s] * behind[quad + k][s];  // gradient of dt A
          rates += exponent * rate[s];
          dA[s] += exponent * step;
        }
        of_decay[k] = rates;
        of_input[k] = input;
        const int begin = sum_of_channels(sums, lane);
#pragma unroll
        for (int i = 0; i < (2 * S + 7) / 8; ++i) {
          const int value = begin + i;  // below S: of dB
          tiles.keys[warp][quad + k][value / S * kWidth + q * S + value % S] = sums[i];
        }
      }
      const float input = sum_of_lanes(of_input, q), rates = sum_of_lanes(of_decay, q);
      // Lane q: step q of the four.
      const int at = (t0 + quad + q) * kChannels + c;
      const float step = tiles.dt[at], u = to_float(tiles.u[at]), up = to_float(tiles.dy[at]);
      const float gradient = (rates * (1.0f / kLog2E) + u * input) * softplus_slope(step);
      dbias += gradient;
      dD += up * u;
      __syncwarp();
      tiles.dt[at] = gradient;
      tiles.u[at] = from_float<T>(step * input + D * up);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kBlock * 2 * kWidth; i += kThreads) {
      const int k = i / (2 * kWidth), value = i % (2 * kWidth), n = value % kWidth;
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kThreads / 32; ++w) sum += tiles.keys[w][k][value];
      const int64_t row = span.begin + t0 + k;
      if (n < plan.N && row < plan.layout.rows) {
        keys[((blockIdx.y * plan.layout.rows + row) * 2 + value / kWidth) * plan.N + n] = sum;
      }
    }
    __syncthreads();
  }
  // Lanes hold different steps' parts of dD and dbias, and dA times log2(e) over it.
  dD += __shfl_xor_sync(0xffffffffu, dD, 1);
  dD += __shfl_xor_sync(0xffffffffu, dD, 2);
  dbias += __shfl_xor_sync(0xffffffffu, dbias, 1);
  dbias += __shfl_xor_sync(0xffffffffu, dbias, 2);
  float* own = by_channel + static_cast<int64_t>(blockIdx.x) * (plan.N + 2) * plan.channels + first + c;
  if (there) {
#pragma unroll
    for (int s = 0; s < S; ++s) {
      if (q * S + s < plan.N) own[(q * S + s) * plan.channels] = dA[s];
    }
    if (q == 0) {
      own[plan.N * plan.channels] = dD;
      own[(plan.N + 1) * plan.channels] = dbias;
    }
  }
  // Rows of blocks that were not walked: their gradients are zero.
  for (int i = threadIdx.x + blocks * kBlock * 2 * plan.N; i < kChunk * 2 * plan.N; i += kThreads) {
    const int64_t row = span.begin + i / (2 * plan.N);
    if (row < plan.layout.rows) keys[(blockIdx.y * plan.layout.rows + span.begin) * 2 * plan.N + i] = 0.0f;
  }
  const int channel = threadIdx.x % kChannels;
  if (first + channel >= plan.channels) return;
  for (int t = threadIdx.x / kChannels; t < kChunk; t += kThreads / kChannels) {
    if (span.begin + t >= plan.layout.rows) break;
    const int64_t to = (span.begin + t) * plan.channels + first + channel;
    du[to] = t < span.used ? tiles.u[t * kChannels + channel] : from_float<T>(0.0f);
    ddelta[to] = from_float<T>(t < span.used ? tiles.dt[t * kChannels + channel] : 0.0f);
  }
}

// dB and dC (rows, N): keys summed over blocks.
template <class T>
__global__ void keys_kernel(ScanPlan plan, const float* __restrict__ keys, Rows<T> dB, Rows<T> dC) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  const int64_t size = plan.layout.rows * 2 * plan.N;
  if (i >= size) return;
  float sum = 0.0f;
  for (int block = 0; block < plan.blocks; ++block) sum += keys[block * size + i];
  const int64_t row = i / (2 * plan.N), value = i % (2 * plan.N);
  const bool is_dB = value < plan.N;
  const Rows<T>& to = is_dB ? dB : dC;
  to.data[row * to.stride + (is_dB ? value : value - plan.N)] = from_float<T>(sum);
}

// The backward pass's scratch, in floats; everything but `total` keeps 16-byte alignment.
struct Scratch {
  explicit Scratch(const ScanPlan& plan)
      : dstates(plan.chunks * plan.state_floats()),
        keys(dstates + plan.chunks * plan.state_floats()),
        by_channel(keys + plan.blocks * plan.layout.rows * 2 * plan.N),
        total(by_channel + plan.chunks * (plan.N + 2) * plan.channels),
        floats(total + plan.chunks * plan.channels) {}
  int64_t dstates, keys, by_channel, total, floats;
};

}  // namespace

int64_t scan_backward_scratch_bytes(const Layout& layout, const ScanShape& shape) {
  return Scratch(scan_plan(layout, shape)).floats * static_cast<int64_t>(sizeof(float));
}

template <class T>
void scan_backward(const Layout& layout, const ScanShape& shape, const ScanInput<T>& in, const float* states,
                   Rows<const T> dy, const ScanGradient<T>& out, void* scratch, cudaStream_t stream) {
  const ScanPlan plan = scan_plan(layout, shape);
  const Scratch places(plan);
  float *added = static_cast<float*>(scratch), *dstates = added + places.dstates, *keys = added + places.keys,
        *by_channel = added + places.by_channel, *total = added + places.total;
  with_states(plan, [&](auto S) {
    added_gradient_kernel<T, decltype(S)::value>
        <<<plan.grid(), kThreads, 0, stream>>>(plan, in, dy, added, total);
    check_launch("scan_added_gradient", plan.text());
    carry_kernel<true><<<carry_grid(plan), 256, 0, stream>>>(plan, in.A, added, total, dstates);
    check_launch("scan_carry_gradient", plan.text());
    const auto kernel = gradient_kernel<T, decltype(S)::value>;
    constexpr int kBytes = sizeof(GradientTiles<T, decltype(S)::value>);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    kernel<<<plan.grid(), kThreads, kBytes, stream>>>(plan, in, dy, states, dstates, out.du, out.ddelta, keys,
                                                      by_channel);
    check_launch("scan_backward", plan.text());
  });
  keys_kernel<<<static_cast<unsigned>(ceil_div(plan.layout.rows * 2 * plan.N, 256)), 256, 0, stream>>>(
      plan, keys, out.dB, out.dC);
  check_launch("scan_backward's sums over blocks", plan.text());
  column_sums("scan_backward's sums over chunks", by_channel, plan.chunks, (plan.N + 2) * plan.channels,
              out.by_channel, stream, {plan.N, plan.channels});
}

#define HAX_INSTANTIATE(T)                                                                           \
  template void scan_backward<T>(const Layout&, const ScanShape&, const ScanInput<T>&, const float*, \
                                 Rows<const T>, const ScanGradient<T>&, void*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
