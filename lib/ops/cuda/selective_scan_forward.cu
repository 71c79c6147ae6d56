// Forward: what chunks add to the state, the states at their beginnings, and then their outputs.
#include "lib/ops/cuda/selective_scan_chunk.cuh"

namespace hax::ops::cuda {
namespace {

// What a chunk adds to the state that leaves it (its tail's steps from a zero state), and the sum of dt over
// all its steps. added (chunks, channels, width), total (chunks, channels).
template <class T, int S>
__global__ void __launch_bounds__(kThreads)
    added_kernel(ScanPlan plan, ScanInput<T> in, float* __restrict__ added, float* __restrict__ total) {
  __shared__ __align__(16) float dt[kChunk * kChannels], B[kChunk * kLanes * S];
  __shared__ T u[kChunk * kChannels];
  const ChunkSpan span = chunk_span(plan.layout, blockIdx.x);
  if (!span.leaves) return;
  const int first = blockIdx.y * kChannels, c = threadIdx.x / kLanes, q = threadIdx.x % kLanes;
  copy_steps(dt, plan, in, span, first);
  copy_channels(u, in.u, span, first, plan.channels, [](T x, int) { return x; });
  copy_states(B, in.B, span, plan.N, kLanes * S);
  float rate[S], h[S] = {}, sum = 0.0f;
  load_rates(rate, in.A, plan, first + c, q);
  __syncthreads();
#pragma unroll 4
  for (int t = span.tail(); t < kChunk; ++t) {
    float b[S];
    load(b, B + (t * kLanes + q) * S);
    const float step = dt[t * kChannels + c], scale = step * to_float(u[t * kChannels + c]);
    sum += step;
#pragma unroll
    for (int s = 0; s < S; ++s) h[s] = exp2_fast(step * rate[s]) * h[s] + scale * b[s];
  }
  if (first + c >= plan.channels) return;
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * plan.channels + first + c;
  store(added + slot * plan.width() + q * S, h);
  // Read where no sequence begins in the chunk, and its tail is all of it.
  if (q == 0) total[slot] = sum;
}

template <class T, int S>
__global__ void __launch_bounds__(kThreads)
    output_kernel(ScanPlan plan, ScanInput<T> in, const float* __restrict__ states, T* __restrict__ y) {
  __shared__ __align__(16) float dt[kChunk * kChannels], B[kChunk * kLanes * S], C[kChunk * kLanes * S];
  __shared__ T u[kChunk * kChannels];  // then y
  const ChunkSpan span = chunk_span(plan.layout, blockIdx.x);
  const int first = blockIdx.y * kChannels, c = threadIdx.x / kLanes, q = threadIdx.x % kLanes;
  const bool there = first + c < plan.channels;
  copy_steps(dt, plan, in, span, first);
  copy_channels(u, in.u, span, first, plan.channels, [](T x, int) { return x; });
  copy_states(B, in.B, span, plan.N, kLanes * S);
  copy_states(C, in.C, span, plan.N, kLanes * S);
  float rate[S], h[S] = {};
  load_rates(rate, in.A, plan, first + c, q);
  if (there && span.entered() > 0) {
    load(h, states + (static_cast<int64_t>(blockIdx.x) * plan.channels + first + c) * plan.width() + q * S);
  }
  const float D = there ? in.D[first + c] : 0.0f;
  __syncthreads();
  for (int t0 = 0; t0 < span.used; t0 += kLanes) {
    float sums[kLanes];
#pragma unroll
    for (int k = 0; k < kLanes; ++k) {
      const int t = t0 + k;
      float b[S], read[S];
      load(b, B + (t * kLanes + q) * S);
      load(read, C + (t * kLanes + q) * S);
      const float step = dt[t * kChannels + c], scale = step * to_float(u[t * kChannels + c]);
      const bool starts = span.starts_at(t);
      float sum = 0.0f;
#pragma unroll
      for (int s = 0; s < S; ++s) {
        h[s] = exp2_fast(step * rate[s]) * (starts ? 0.0f : h[s]) + scale * b[s];
        sum += h[s] * read[s];
      }
      sums[k] = sum;
    }
    const float sum = sum_of_lanes(sums, q);
    T* own = u + (t0 + q) * kChannels + c;
    *own = from_float<T>(sum + D * to_float(*own));
  }
  __syncthreads();
  const int channel = threadIdx.x % kChannels;
  if (first + channel >= plan.channels) return;
  for (int t = threadIdx.x / kChannels; t < kChunk; t += kThreads / kChannels) {
    if (span.begin + t >= plan.layout.rows) break;
    y[(span.begin + t) * plan.channels + first + channel] =
        t < span.used ? u[t * kChannels + channel] : from_float<T>(0.0f);
  }
}

}  // namespace

int64_t scan_state_floats(const Layout& layout, const ScanShape& shape) {
  const ScanPlan plan = scan_plan(layout, shape);
  return plan.chunks * plan.state_floats();
}

int64_t scan_forward_scratch_bytes(const Layout& layout, const ScanShape& shape) {
  return carry_floats(scan_plan(layout, shape)) * static_cast<int64_t>(sizeof(float));
}

template <class T>
void scan_forward(const Layout& layout, const ScanShape& shape, const ScanInput<T>& in, T* y, float* states,
                  void* scratch, cudaStream_t stream) {
  const ScanPlan plan = scan_plan(layout, shape);
  float *added = static_cast<float*>(scratch), *total = added + plan.chunks * plan.state_floats();
  with_states(plan, [&](auto S) {
    added_kernel<T, decltype(S)::value><<<plan.grid(), kThreads, 0, stream>>>(plan, in, added, total);
    check_launch("scan_added", plan.text());
    carry_kernel<false><<<carry_grid(plan), 256, 0, stream>>>(plan, in.A, added, total, states);
    check_launch("scan_carry", plan.text());
    output_kernel<T, decltype(S)::value><<<plan.grid(), kThreads, 0, stream>>>(plan, in, states, y);
    check_launch("scan_forward", plan.text());
  });
}

#define HAX_INSTANTIATE(T)                                                                               \
  template void scan_forward<T>(const Layout&, const ScanShape&, const ScanInput<T>&, T*, float*, void*, \
                                cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
