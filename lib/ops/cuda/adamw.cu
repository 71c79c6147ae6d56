#include "lib/ops/cuda/adamw.h"

#include "lib/ops/cuda/convert.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 256;

// The settings in fp32. 1 - beta is rounded once: where a bf16 sum is a tie, its last bit decides.
struct Factors {
  float beta1, fresh1, beta2, fresh2, eps, weight_decay, grad_clip;
  __device__ explicit Factors(const AdamWSettings& s)
      : beta1(static_cast<float>(s.beta1)),
        fresh1(static_cast<float>(1.0 - s.beta1)),
        beta2(static_cast<float>(s.beta2)),
        fresh2(static_cast<float>(1.0 - s.beta2)),
        eps(static_cast<float>(s.eps)),
        weight_decay(static_cast<float>(s.weight_decay)),
        grad_clip(static_cast<float>(s.grad_clip)) {}
};

__global__ void adamw_kernel(int64_t n, AdamWSettings s, const float* __restrict__ lr_at,
                             const int64_t* __restrict__ step, const float* __restrict__ grad_norm,
                             const int32_t* __restrict__ skip, const float* __restrict__ grad,
                             float* __restrict__ weight, float* __restrict__ exp_avg,
                             float* __restrict__ exp_avg_sq) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n || *skip != 0) return;
  const double count = static_cast<double>(*step + 1);
  const float lr = *lr_at;
  const auto correction1 = static_cast<float>(1.0 - pow(s.beta1, count));
  const auto correction2 = static_cast<float>(sqrt(1.0 - pow(s.beta2, count)));
  const Factors f(s);
  float g = grad[i];
  if (s.grad_clip > 0.0 && *grad_norm > s.grad_clip) g *= f.grad_clip / *grad_norm;
  const float m = f.beta1 * exp_avg[i] + f.fresh1 * g;
  const float v = f.beta2 * exp_avg_sq[i] + f.fresh2 * g * g;
  exp_avg[i] = m;
  exp_avg_sq[i] = v;
  const float w = weight[i] - lr * f.weight_decay * weight[i];
  weight[i] = w - lr / correction1 * m / (sqrtf(v) / correction2 + f.eps);
}

__global__ void rounded_adamw_kernel(int64_t n, AdamWSettings s, const float* __restrict__ lr_at,
                                     const int64_t* __restrict__ step, const float* __restrict__ grad_norm,
                                     const int32_t* __restrict__ skip, const __nv_bfloat16* __restrict__ grad,
                                     __nv_bfloat16* __restrict__ weight, __nv_bfloat16* __restrict__ exp_avg,
                                     __nv_bfloat16* __restrict__ exp_avg_sq) {
  using B = __nv_bfloat16;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n || *skip != 0) return;
  const double count = static_cast<double>(*step + 1), lr = *lr_at;
  const double correction1 = 1.0 - pow(s.beta1, count);
  const double correction2 = 1.0 - pow(s.beta2, count);
  const Factors f(s);
  float g = to_float(grad[i]);
  if (s.grad_clip > 0.0 && *grad_norm > s.grad_clip)
    g = rounded<B>(g * static_cast<float>(s.grad_clip / *grad_norm));
  const float w = rounded<B>(to_float(weight[i]) * static_cast<float>(1.0 - lr * s.weight_decay));
  const float m0 = to_float(exp_avg[i]), m = rounded<B>(m0 + f.fresh1 * (g - m0));
  const float decayed = rounded<B>(to_float(exp_avg_sq[i]) * f.beta2);
  const float v = rounded<B>(decayed + f.fresh2 * (g * g));
  const float root = rounded<B>(rounded<B>(sqrtf(v)) / static_cast<float>(sqrt(correction2)));
  const float denominator = rounded<B>(root + f.eps);
  exp_avg[i] = from_float<B>(m);
  exp_avg_sq[i] = from_float<B>(v);
  weight[i] = from_float<B>(w + static_cast<float>(-lr / correction1) * (m / denominator));
}

__device__ __forceinline__ float block_sum(float x) {
  __shared__ float warps[kThreads / 32];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0.0f;
  for (int w = 0; w < kThreads / 32; ++w) sum += warps[w];
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    squares_kernel(int64_t n, const T* __restrict__ x, float* __restrict__ parts) {
  float sum = 0.0f;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n;
       i += kNormBlocks * kThreads)
    sum += to_float(x[i]) * to_float(x[i]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}
__global__ void __launch_bounds__(kThreads)
    root_kernel(const float* __restrict__ parts, float* __restrict__ norm) {
  const float sum = block_sum(threadIdx.x < kNormBlocks ? parts[threadIdx.x] : 0.0f);
  if (threadIdx.x == 0) *norm = sqrtf(sum);
}

}  // namespace

void adamw(int64_t n, const AdamWSettings& settings, const float* lr, const int64_t* step,
           const float* grad_norm, const int32_t* skip, const float* grad, float* weight, float* exp_avg,
           float* exp_avg_sq, cudaStream_t stream) {
  adamw_kernel<<<static_cast<unsigned>(ceil_div(n, kThreads)), kThreads, 0, stream>>>(
      n, settings, lr, step, grad_norm, skip, grad, weight, exp_avg, exp_avg_sq);
  check_launch("adamw", "parameters " + std::to_string(n));
}

void adamw(int64_t n, const AdamWSettings& settings, const float* lr, const int64_t* step,
           const float* grad_norm, const int32_t* skip, const __nv_bfloat16* grad, __nv_bfloat16* weight,
           __nv_bfloat16* exp_avg, __nv_bfloat16* exp_avg_sq, cudaStream_t stream) {
  rounded_adamw_kernel<<<static_cast<unsigned>(ceil_div(n, kThreads)), kThreads, 0, stream>>>(
      n, settings, lr, step, grad_norm, skip, grad, weight, exp_avg, exp_avg_sq);
  check_launch("adamw in bf16", "parameters " + std::to_string(n));
}

template <class T>
void global_norm(int64_t n, const T* x, float* norm, float* scratch, cudaStream_t stream) {
  squares_kernel<T><<<kNormBlocks, kThreads, 0, stream>>>(n, x, scratch);
  root_kernel<<<1, kThreads, 0, stream>>>(scratch, norm);
  check_launch("global_norm", "elements " + std::to_string(n));
}
template void global_norm<float>(int64_t, const float*, float*, float*, cudaStream_t);
template void global_norm<__nv_bfloat16>(int64_t, const __nv_bfloat16*, float*, float*, cudaStream_t);

}  // namespace hax::ops::cuda
