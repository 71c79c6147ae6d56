// Backward: the gradients of the states at the chunks' ends, each tile's gradients, and their sums over
// teams and blocks of channels.
#include <algorithm>

#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/selective_scan_added.cuh"
#include "lib/ops/cuda/selective_scan_gradient.cuh"

namespace hax::ops::cuda {
namespace {

// The sums over teams of by_channel (teams, columns).
struct ChannelSums {
  unsigned blocks;  // that find them
  const float* by_channel;
  int64_t teams, columns;
  Transposed transposed;
  float* sums;
};

// dB and dC (rows, N): keys summed over blocks, four neighbours a thread; zeros behind the rows in use.
// whole: the four may be stored at once. The first blocks sum channels.
template <class T, int S>
__global__ void __launch_bounds__(1024) sums_kernel(ScanPlan plan, const float* __restrict__ keys, Rows<T> dB,
                                                    Rows<T> dC, bool whole, ChannelSums channels) {
  if (blockIdx.x < channels.blocks) {
    sum_columns(static_cast<int64_t>(blockIdx.x) * kSummedColumns, channels.by_channel, channels.teams,
                channels.columns, channels.transposed, channels.sums);
    return;
  }
  constexpr int kInRow = 2 * S;
  const int64_t block = blockIdx.x - channels.blocks, size = plan.layout.rows * kInRow;
  const int64_t i = block * 1024 + threadIdx.y * 32 + threadIdx.x;
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

// More blocks of gradient_kernel never fit on a multiprocessor.
constexpr int64_t kMostBlocks = 4;

// Teams of plan.blocks blocks that share the tiles, where so many blocks fit on a multiprocessor.
int64_t teams_of(const ScanPlan& plan, int64_t fit) {
  const int64_t teams = std::min(fit, kMostBlocks) * multiprocessors() / plan.blocks;
  return std::max<int64_t>(1, std::min(teams, ceil_div(plan.layout.rows, kTile)));
}

// The backward pass's scratch, in floats: the gradients of states at the ends of chunks first and what is
// added to them in the middle, then what carries them, and, after it in the same place, the partial sums.
struct Scratch {
  explicit Scratch(const ScanPlan& plan)
      : middle(plan.chunks * plan.state_floats()),
        carry(2 * middle),
        by_channel(carry + plan.blocks * plan.layout.rows * 2 * plan.width()),
        middle_total(std::max(carry + carry_floats(plan),
                              by_channel + teams_of(plan, kMostBlocks) * (plan.N + 2) * plan.channels)),
        floats(middle_total + plan.chunks * plan.channels) {}
  int64_t middle, carry, by_channel, middle_total, floats;
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
  const Added middle{dstates + places.middle, dstates + places.middle_total};
  with_states(plan, [&](auto S) {
    constexpr int kStates = decltype(S)::value;
    carry_states<kStates, true>(plan, in, dy, dstates, dstates + places.carry, stream, middle);
    const auto kernel = gradient_kernel<T, kStates>;
    constexpr int kBytes = sizeof(GradientTiles<T, kStates>);
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    int fit = 0;
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, kernel, kThreads, kBytes);
    const int64_t teams = teams_of(plan, fit);
    const dim3 grid(static_cast<unsigned>(teams), static_cast<unsigned>(plan.blocks));
    kernel<<<grid, kThreads, kBytes, stream>>>(
        plan, in, GradientOutput<T>{dy, states, dstates, middle, out.du, out.ddelta, keys, by_channel});
    check_launch("scan_backward", plan.text());
    const bool whole = plan.N == plan.width() && aligned<4>(out.dB) && aligned<4>(out.dC);
    const int64_t columns = static_cast<int64_t>(plan.N + 2) * plan.channels;
    const auto channel_blocks = static_cast<unsigned>(ceil_div(columns, kSummedColumns));
    const ChannelSums channels{channel_blocks,          by_channel,    teams, columns,
                               {plan.N, plan.channels}, out.by_channel};
    const auto key_blocks = static_cast<unsigned>(ceil_div(layout.rows * 2 * kStates, 1024));
    sums_kernel<T, kStates><<<channel_blocks + key_blocks, dim3(32, 32), 0, stream>>>(
        plan, keys, out.dB, out.dC, whole, channels);
    check_launch("scan_backward's sums", plan.text());
  });
}

#define HAX_INSTANTIATE(T)                                                                           \
  template void scan_backward<T>(const Layout&, const ScanShape&, const ScanInput<T>&, const float*, \
                                 Rows<const T>, const ScanGradient<T>&, void*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
