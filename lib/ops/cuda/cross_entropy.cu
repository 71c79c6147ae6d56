// A warp a row. Sums over rows: per block in shared memory, then one block in the order of blocks.
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/cross_entropy.h"
#include "lib/ops/cuda/warp.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kWarps = 8;

// parts (blocks, 2): loss and rows in use. L: what log-probabilities are rounded to.
template <class T, class L>
__global__ void __launch_bounds__(kWarps * 32)
    forward_kernel(LossShape shape, const T* __restrict__ logits, const int64_t* __restrict__ target,
                   float* __restrict__ normaliser, bool* __restrict__ correct, float* __restrict__ parts) {
  __shared__ float losses[kWarps], counts[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, V = static_cast<int>(shape.vocab);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  const int64_t wanted = row < shape.rows ? target[row] : -1;
  float loss = 0.0f;
  if (wanted >= 0) {
    const T* x = logits + row * V;
    float best = -INFINITY;
    int place = V;
    for (int v = lane; v < V; v += 32) {
      const float value = to_float(x[v]);
      if (value > best) {
        best = value;
        place = v;
      }
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {  // the first of ties
      const float other = __shfl_xor_sync(0xffffffffu, best, step);
      const int other_place = __shfl_xor_sync(0xffffffffu, place, step);
      if (other > best || (other == best && other_place < place)) {
        best = other;
        place = other_place;
      }
    }
    float sum = 0.0f;
    for (int v = lane; v < V; v += 32) sum += __expf(to_float(x[v]) - best);
    const float log_sum = best + logf(warp_sum(sum));
    loss = rounded<L>(log_sum - to_float(x[wanted]));
    if (lane == 0) {
      normaliser[row] = log_sum;
      correct[row] = place == wanted;
    }
  } else if (row < shape.rows && lane == 0) {
    normaliser[row] = 0.0f;
    correct[row] = false;
  }
  if (lane == 0) {
    losses[warp] = loss;
    counts[warp] = wanted >= 0 ? 1.0f : 0.0f;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  float sum = 0.0f, count = 0.0f;
  for (int w = 0; w < kWarps; ++w) {
    sum += losses[w];
    count += counts[w];
  }
  parts[2 * blockIdx.x] = sum;
  parts[2 * blockIdx.x + 1] = count;
}

template <class L>
__global__ void mean_kernel(const float* __restrict__ parts, int blocks, float* __restrict__ loss,
                            float* __restrict__ inverse_count) {
  double sum = 0.0, count = 0.0;
  for (int b = threadIdx.x; b < blocks; b += 32) {
    sum += parts[2 * b];
    count += parts[2 * b + 1];
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, step);
    count += __shfl_xor_sync(0xffffffffu, count, step);
  }
  if (threadIdx.x != 0) return;
  const double inverse = 1.0 / fmax(count, 1.0);
  loss[0] = rounded<L>(static_cast<float>(sum * inverse));
  inverse_count[0] = static_cast<float>(inverse);
}

template <class T, class L>
__global__ void __launch_bounds__(kWarps * 32)
    backward_kernel(LossShape shape, const T* __restrict__ logits, const int64_t* __restrict__ target,
                    const float* __restrict__ normaliser, const float* __restrict__ dloss,
                    const float* __restrict__ inverse_count, T* __restrict__ dlogits) {
  const int lane = threadIdx.x % 32, V = static_cast<int>(shape.vocab);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= shape.rows) return;
  const int64_t wanted = target[row];
  const float scale = wanted >= 0 ? rounded<L>(dloss[0] * inverse_count[0]) : 0.0f, log_sum = normaliser[row];
  for (int v = lane; v < V; v += 32) {
    float p = 0.0f;
    if (wanted >= 0)
      p = __expf(rounded<L>(to_float(logits[row * V + v]) - log_sum)) - (v == wanted ? 1.0f : 0.0f);
    dlogits[row * V + v] = from_float<T>(p * scale);
  }
}

// One block: a warp an example in turn, then the warps' sums in order.
__global__ void accuracy_kernel(int batch, const bool* __restrict__ correct,
                                const int64_t* __restrict__ cu_scored, float* __restrict__ accuracy) {
  __shared__ float sums[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  float sum = 0.0f;
  for (int b = warp; b < batch; b += warps) {
    const int64_t first = cu_scored[b], last = cu_scored[b + 1];
    float hits = 0.0f;
    for (int64_t i = first + lane; i < last; i += 32) hits += correct[i] ? 1.0f : 0.0f;
    hits = warp_sum(hits);
    if (last > first) sum += hits / static_cast<float>(last - first);
  }
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  float total = 0.0f;
  for (int w = 0; w < warps; ++w) total += sums[w];
  accuracy[0] = total / static_cast<float>(batch);
}

unsigned blocks_of(const LossShape& shape) { return static_cast<unsigned>(ceil_div(shape.rows, kWarps)); }
std::string shape_text(const LossShape& shape) {
  return "rows " + std::to_string(shape.rows) + ", vocabulary " + std::to_string(shape.vocab);
}

// f(L()): log-probabilities in fp32, or rounded to T.
template <class T, class F>
void with_rounding(bool rounds, const F& f) {
  if (rounds)
    f(T());
  else
    f(float());
}

}  // namespace

int64_t loss_scratch_floats(const LossShape& shape) { return 2 * static_cast<int64_t>(blocks_of(shape)); }

template <class T>
void cross_entropy_forward(const LossShape& shape, bool rounds, const T* logits, const int64_t* target,
                           float* normaliser, bool* correct, float* loss, float* inverse_count,
                           float* scratch, cudaStream_t stream) {
  with_rounding<T>(rounds, [&](auto rounding) {
    using L = decltype(rounding);
    if (shape.rows > 0) {
      forward_kernel<T, L>
          <<<blocks_of(shape), kWarps * 32, 0, stream>>>(shape, logits, target, normaliser, correct, scratch);
      check_launch("cross_entropy_forward", shape_text(shape));
    }
    mean_kernel<L><<<1, 32, 0, stream>>>(scratch, static_cast<int>(blocks_of(shape)), loss, inverse_count);
  });
  check_launch("cross_entropy_forward's mean", shape_text(shape));
}

template <class T>
void cross_entropy_backward(const LossShape& shape, bool rounds, const T* logits, const int64_t* target,
                            const float* normaliser, const float* dloss, const float* inverse_count,
                            T* dlogits, cudaStream_t stream) {
  if (shape.rows == 0) return;
  with_rounding<T>(rounds, [&](auto rounding) {
    backward_kernel<T, decltype(rounding)><<<blocks_of(shape), kWarps * 32, 0, stream>>>(
        shape, logits, target, normaliser, dloss, inverse_count, dlogits);
  });
  check_launch("cross_entropy_backward", shape_text(shape));
}

void example_accuracy(int64_t batch, const bool* correct, const int64_t* cu_scored, float* accuracy,
                      cudaStream_t stream) {
  accuracy_kernel<<<1, 1024, 0, stream>>>(static_cast<int>(batch), correct, cu_scored, accuracy);
  check_launch("example_accuracy", "examples " + std::to_string(batch));
}

#define HAX_INSTANTIATE(T)                                                                                \
  template void cross_entropy_forward<T>(const LossShape&, bool, const T*, const int64_t*, float*, bool*, \
                                         float*, float*, float*, cudaStream_t);                           \
  template void cross_entropy_backward<T>(const LossShape&, bool, const T*, const int64_t*, const float*, \
                                          const float*, const float*, T*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
