// A block computes features, hidden features and scores of its sequence's sampled keys, the pairs, and at
// once the way back to the weights, all in shared memory: the gradient of a sum over pairs needs nothing of
// other sequences, and what it is divided by follows when they are added up. Values are rounded to W where a
// framework that works in W rounds them.
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/sampled_ranking.h"
#include "lib/ops/cuda/warp.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 256, kRows = 4;  // rows of a thread at a time
constexpr int kTogether = 8;              // threads that share a key's score and pairs
constexpr int64_t kSharedBytes = 200 * 1024;

__device__ __forceinline__ float at(const FloatArray& x, int64_t i) {
  return x.is_bf16 ? to_float(static_cast<const __nv_bfloat16*>(x.data)[i])
                   : static_cast<const float*>(x.data)[i];
}

// Where things lie in shared memory, in floats. Matrices' rows are `stride` apart: 16-byte loads of
// neighbouring rows meet different banks.
struct Places {
  int width, k, rows, stride;
  __host__ __device__ Places(int d, int k)
      : width(2 * d), k(k), rows((k + kRows - 1) / kRows * kRows), stride(2 * d + 4) {}
  __host__ __device__ int w1() const { return 0; }
  __host__ __device__ int w2() const { return width * stride; }
  __host__ __device__ int x() const { return 2 * width * stride; }
  __host__ __device__ int h1() const { return x() + rows * stride; }
  __host__ __device__ int h2() const { return h1() + rows * stride; }
  __host__ __device__ int vectors() const { return h2() + rows * stride; }  // b1, b2, w3 (width each)
  __host__ __device__ int keys() const {
    return vectors() + 3 * width;
  }  // score, target, valid, slope (rows)
  __host__ __device__ int floats() const { return keys() + 4 * rows; }
};

__device__ __forceinline__ void add_product(float& sum, const float4& a, const float4& b) {
  sum += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

// out (rows, width) = relu(in w^T + b)
template <class W>
__device__ __forceinline__ void layer(const Places& p, const float* in, const float* w, const float* b,
                                      float* out) {
  for (int e = threadIdx.x; e < p.rows / kRows * p.width; e += kThreads) {
    const int n = e % p.width, i = e / p.width * kRows;
    float sum[kRows] = {};
    for (int c = 0; c < p.width; c += 4) {
      const float4 v = *reinterpret_cast<const float4*>(w + n * p.stride + c);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        add_product(sum[r], *reinterpret_cast<const float4*>(in + (i + r) * p.stride + c), v);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) out[(i + r) * p.stride + n] = fmaxf(rounded<W>(sum[r] + b[n]), 0.0f);
  }
}

// dw (width, width) = g^T in, db (width) = the sum of g's rows.
__device__ __forceinline__ void weight_gradient(const Places& p, const float* g, const float* in, float* dw,
                                                float* db) {
  for (int e = threadIdx.x; e < p.width / 4 * p.width; e += kThreads) {
    const int m = e % p.width, n = e / p.width * 4;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f), bias = sum;
    for (int i = 0; i < p.k; ++i) {
      const float4 v = *reinterpret_cast<const float4*>(g + i * p.stride + n);
      const float x = in[i * p.stride + m];
      sum.x += v.x * x, sum.y += v.y * x, sum.z += v.z * x, sum.w += v.w * x;
      bias.x += v.x, bias.y += v.y, bias.z += v.z, bias.w += v.w;
    }
    const float sums[4] = {sum.x, sum.y, sum.z, sum.w}, biases[4] = {bias.x, bias.y, bias.z, bias.w};
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      dw[(n + r) * p.width + m] = sums[r];
      if (m == 0) db[n + r] = biases[r];
    }
  }
}

// The gradient in front of a layer: h becomes g w where h > 0, else 0.
template <class W>
__device__ __forceinline__ void input_gradient(const Places& p, const float* g, const float* w, float* h) {
  for (int e = threadIdx.x; e < p.rows / kRows * p.width; e += kThreads) {
    const int m = e % p.width, i = e / p.width * kRows;
    float sum[kRows] = {};
    for (int n = 0; n < p.width; n += 4) {
      const float* at = w + n * p.stride + m;
      const float4 v = make_float4(at[0], at[p.stride], at[2 * p.stride], at[3 * p.stride]);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        add_product(sum[r], *reinterpret_cast<const float4*>(g + (i + r) * p.stride + n), v);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float& own = h[(i + r) * p.stride + m];
      own = own > 0.0f ? rounded<W>(sum[r]) : 0.0f;
    }
  }
}

// score (rows) = h2 w3 + b3; kTogether threads a key.
template <class W>
__device__ __forceinline__ void scores(const Places& p, const float* h2, const float* w3, float b3,
                                       float* score) {
  const int part = threadIdx.x % kTogether;
  for (int i0 = 0; i0 < p.rows; i0 += kThreads / kTogether) {
    const int i = i0 + threadIdx.x / kTogether;
    float sum = 0.0f;
    for (int c = part; i < p.rows && c < p.width; c += kTogether) sum += h2[i * p.stride + c] * w3[c];
#pragma unroll
    for (int step = kTogether / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (i < p.rows && part == 0) score[i] = rounded<W>(sum + b3);
  }
}

// slope (rows): of the sum over pairs; returns this thread's share of that sum.
template <class W>
__device__ __forceinline__ float pairs(const Places& p, bool rounds, const float* s, const float* y,
                                       const float* v, float* slope) {
  float loss = 0.0f;
  for (int j0 = 0; j0 < p.rows; j0 += kThreads / kTogether) {
    const int j = j0 + static_cast<int>(threadIdx.x) / kTogether;
    float sum = 0.0f;
    for (int l = static_cast<int>(threadIdx.x) % kTogether; j < p.k && l < p.k; l += kTogether) {
      const float difference = s[j] - s[l], x = rounds ? rounded<W>(difference) : difference;
      const float weight = v[j] * v[l];
      const float t = 0.5f * ((y[j] > y[l] ? 1.0f : 0.0f) + (y[j] >= y[l] ? 1.0f : 0.0f));
      loss += weight * (fmaxf(x, 0.0f) - x * t + log1pf(__expf(-fabsf(x))));
      sum += weight * (sigmoid(x) - t);
    }
#pragma unroll
    for (int step = kTogether / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    // The pair (l, j) pulls at s_j as (j, l) does.
    if (j < p.rows && threadIdx.x % kTogether == 0) slope[j] = rounded<W>(2.0f * sum);
  }
  return loss;
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Layout layout, int d, int k, RankingInput in, ScoreWeights<W> weights, bool rounds_pairs,
                   float* __restrict__ parts) {
  extern __shared__ float4 aligned[];
  __shared__ float partial[kThreads / 32];
  float* shared = reinterpret_cast<float*>(aligned);
  const Places p(d, k);
  const int F = p.width;
  float *w1 = shared + p.w1(), *w2 = shared + p.w2(), *x = shared + p.x(), *h1 = shared + p.h1(),
        *h2 = shared + p.h2(), *b1 = shared + p.vectors(), *b2 = b1 + F, *w3 = b2 + F,
        *score = shared + p.keys(), *target = score + p.rows, *valid = target + p.rows,
        *slope = valid + p.rows;
  for (int e = threadIdx.x; e < F * F; e += kThreads) {
    const int to = e / F * p.stride + e % F;
    w1[to] = to_float(weights.w1[e]);
    w2[to] = to_float(weights.w2[e]);
  }
  for (int e = threadIdx.x; e < F; e += kThreads) {
    b1[e] = to_float(weights.b1[e]);
    b2[e] = to_float(weights.b2[e]);
    w3[e] = to_float(weights.w3[e]);
  }
  const int64_t begin = layout.cu_seqlens[blockIdx.x], n = layout.cu_seqlens[blockIdx.x + 1] - begin;
  const int64_t* sampled = in.sampled + static_cast<int64_t>(blockIdx.x) * k;
  for (int e = threadIdx.x; e < p.rows * F; e += kThreads) {
    const int i = e / F, c = e % F;
    const int64_t j = i < k ? sampled[i] : -1, row = begin + min(max(j, int64_t{0}), n - 1);
    float value = 0.0f;
    if (i < k && c >= d)
      value = at(in.summary, row * in.summary_stride + c - d);
    else if (i < k && j < n)
      value = at(in.K, row * in.K_stride + c);
    x[i * p.stride + c] = rounded<W>(value);
  }
  int count = 0;
  for (int i0 = 0; i0 < p.rows; i0 += kThreads) {
    const int i = i0 + static_cast<int>(threadIdx.x);
    const bool real = i < k && sampled[i] >= 0;
    if (i < p.rows) {
      target[i] = i < k ? at(in.targets, static_cast<int64_t>(blockIdx.x) * k + i) : 0.0f;
      valid[i] = real ? 1.0f : 0.0f;
    }
    count += __syncthreads_count(real);
  }
  layer<W>(p, x, w1, b1, h1);
  __syncthreads();
  layer<W>(p, h1, w2, b2, h2);
  __syncthreads();
  scores<W>(p, h2, w3, to_float(weights.b3[0]), score);
  __syncthreads();
  const float loss = warp_sum(pairs<W>(p, rounds_pairs, score, target, valid, slope));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = loss;
  __syncthreads();

  float* dw1 = parts + static_cast<int64_t>(blockIdx.x) * (2 * F * F + 3 * F + 3);
  float *db1 = dw1 + F * F, *dw2 = db1 + F, *db2 = dw2 + F * F, *dw3 = db2 + F, *db3 = dw3 + F;
  if (threadIdx.x == 0) {
    float sum = 0.0f, slopes = 0.0f;
    for (const float part : partial) sum += part;
    for (int i = 0; i < k; ++i) slopes += slope[i];
    db3[0] = slopes;
    db3[1] = sum;
    db3[2] = static_cast<float>(count) * static_cast<float>(count);
  }
  for (int c = threadIdx.x; c < F; c += kThreads) {
    float sum = 0.0f;
    for (int i = 0; i < k; ++i) sum += slope[i] * h2[i * p.stride + c];
    dw3[c] = sum;
  }
  __syncthreads();
  for (int e = threadIdx.x; e < p.rows * F; e += kThreads) {
    float& own = h2[e / F * p.stride + e % F];
    own = own > 0.0f ? rounded<W>(slope[e / F] * w3[e % F]) : 0.0f;
  }
  __syncthreads();
  weight_gradient(p, h2, h1, dw2, db2);
  __syncthreads();
  input_gradient<W>(p, h2, w2, h1);
  __syncthreads();
  weight_gradient(p, h1, x, dw1, db1);
}

__global__ void mean_kernel(int batch, int64_t columns, const float* __restrict__ parts,
                            float* __restrict__ mean) {
  float sum = 0.0f, count = 0.0f;
  for (int b = threadIdx.x; b < batch; b += 32) {
    sum += parts[(b + 1) * columns - 2];
    count += parts[(b + 1) * columns - 1];
  }
  sum = warp_sum(sum);
  count = fmaxf(warp_sum(count), 1.0f);
  if (threadIdx.x != 0) return;
  mean[0] = sum / count;
  mean[1] = 1.0f / count;
}

template <class W>
__global__ void backward_kernel(int batch, int64_t weights, const float* __restrict__ parts,
                                const float* __restrict__ mean, const float* __restrict__ dloss,
                                W* __restrict__ gradients) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= weights) return;
  float sum = 0.0f;
#pragma unroll 16
  for (int b = 0; b < batch; ++b) sum += parts[b * (weights + 2) + i];
  gradients[i] = from_float<W>(sum * (dloss[0] * mean[1]));
}

std::string text(int64_t batch, const RankingShape& shape) {
  return "sequences " + std::to_string(batch) + ", d " + std::to_string(shape.d) + ", k " +
         std::to_string(shape.k);
}

int64_t shared_bytes(const RankingShape& shape) {
  return Places(static_cast<int>(shape.d), static_cast<int>(shape.k)).floats() *
         static_cast<int64_t>(sizeof(float));
}

}  // namespace

bool has_sampled_ranking(const RankingShape& shape) {
  return shape.d % 2 == 0 && shape.d <= 128 && shape.k <= 4096 && shared_bytes(shape) <= kSharedBytes;
}

template <class W>
void sampled_ranking_forward(const Layout& layout, const RankingShape& shape, const RankingInput& in,
                             const ScoreWeights<W>& weights, bool rounds_pairs, float* parts, float* mean,
                             cudaStream_t stream) {
  const int64_t bytes = shared_bytes(shape);
  const auto kernel = forward_kernel<W>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  kernel<<<static_cast<unsigned>(layout.batch), kThreads, bytes, stream>>>(
      layout, static_cast<int>(shape.d), static_cast<int>(shape.k), in, weights, rounds_pairs, parts);
  check_launch("sampled_ranking", text(layout.batch, shape));
  mean_kernel<<<1, 32, 0, stream>>>(static_cast<int>(layout.batch), shape.weights() + 2, parts, mean);
  check_launch("sampled_ranking's mean", text(layout.batch, shape));
}

template <class W>
void sampled_ranking_backward(int64_t batch, const RankingShape& shape, const float* parts, const float* mean,
                              const float* dloss, W* gradients, cudaStream_t stream) {
  backward_kernel<<<static_cast<unsigned>(ceil_div(shape.weights(), 128)), 128, 0, stream>>>(
      static_cast<int>(batch), shape.weights(), parts, mean, dloss, gradients);
  check_launch("sampled_ranking_backward", text(batch, shape));
}

#define HAX_INSTANTIATE(W)                                                                              \
  template void sampled_ranking_forward<W>(const Layout&, const RankingShape&, const RankingInput&,     \
                                           const ScoreWeights<W>&, bool, float*, float*, cudaStream_t); \
  template void sampled_ranking_backward<W>(int64_t, const RankingShape&, const float*, const float*,   \
                                            const float*, W*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
