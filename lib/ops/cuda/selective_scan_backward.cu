// Backward: the gradients of the states at the chunks' ends, each chunk's gradients, and their sums over
// chunks and blocks of channels.
#include <algorithm>

#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/selective_scan_added.cuh"
#include "lib/ops/cuda/selective_scan_gradient.cuh"

namespace hax::ops::cuda {
namespace {

// dB and dC (rows, N): keys summed over blocks, four neighbours a thread; zeros behind the rows in use.
// whole: the four may be stored at once.
template <class T, int S>
__global__ void __launch_bounds__(256)
    keys_kernel(ScanPlan plan, const float* __restrict__ keys, Rows<T> dB, Rows<T> dC, bool whole) {
  constexpr int kInRow = 2 * S;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x, size = plan.layout.rows * kInRow;
  if (i >= size) return;
  const int64_t row = i / kInRow;
  const int place = static_cast<int>(i % kInRow), n = place % S * 4;
  const int blocks = row < plan.layout.cu_seqlens[plan.layout.batch] ? plan.blocks : 0;
  float sum[4] = {};
  for (int block = 0; block < blocks; ++block) {
    float part[4];
    load(part, keys + (block * size + i) * 4);
#pragma unroll
    for (int k = 0; k < 4; ++k) sum[k] += part[k];
  }
  T* to = place < S ? dB.data + row * dB.stride + n : dC.data + row * dC.stride + n;
  if (whole) {
    store_vector<4>(to, sum);
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (n + k < plan.N) to[k] = from_float<T>(sum[k]);
    }
  }
}

// The backward pass's scratch, in floats: the gradients of states first, then what carries them, and, after
// them in the same place, the partial sums.
struct Scratch {
  explicit Scratch(const ScanPlan& plan)
      : carry(plan.chunks * plan.state_floats()),
        by_channel(carry + plan.blocks * plan.layout.rows * 2 * plan.width()),
        floats(
            std::max(carry + carry_floats(plan), by_channel + plan.chunks * (plan.N + 2) * plan.channels)) {}
  int64_t carry, by_channel, floats;
};

}  // namespace

int64_t scan_backward_scratch_bytes(const Layout& layout, const ScanShape& shape) {
  return Scratch(scan_plan(layout, shape)).floats * static_cast<int64_t>(sizeof(float));
}

template <class T>
void scan_backward(const Layout& layout, const ScanShape& shape, const ScanInput<T>& in, const float* states,
                   Rows<const T> dy, const ScanGradient<T>& out, void* scratch, cudaStream_t stream) {
  ScanPlan plan = scan_plan(layout, shape, in);
  plan.paired = plan.paired && aligned<2>(dy);
  const Scratch places(plan);
  float *dstates = static_cast<float*>(scratch), *keys = dstates + places.carry,
        *by_channel = dstates + places.by_channel;
  with_states(plan, [&](auto S) {
    constexpr int kStates = decltype(S)::value;
    carry_states<kStates, true>(plan, in, dy, dstates, dstates + places.carry, stream);
    const auto kernel = gradient_kernel<T, kStates>;
    constexpr int kBytes = sizeof(GradientTiles<T, kStates>);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    kernel<<<plan.grid(), kThreads, kBytes, stream>>>(
        plan, in, GradientOutput<T>{dy, states, dstates, out.du, out.ddelta, keys, by_channel});
    check_launch("scan_backward", plan.text());
    const bool whole = plan.N == plan.width() && aligned<4>(out.dB) && aligned<4>(out.dC);
    keys_kernel<T, kStates>
        <<<static_cast<unsigned>(ceil_div(layout.rows * 2 * kStates, 256)), 256, 0, stream>>>(
            plan, keys, out.dB, out.dC, whole);
    check_launch("scan_backward's sums over blocks", plan.text());
  });
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
