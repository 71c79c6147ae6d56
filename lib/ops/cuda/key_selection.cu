#include "lib/ops/cuda/chunk_sums.cuh"
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/key_selection.h"
#include "lib/ops/cuda/philox.cuh"
#include "lib/ops/cuda/tiles.cuh"
#include "lib/ops/cuda/warp.cuh"

namespace hax::ops::cuda {
namespace {

// ---- query summary: running sums by chunks, then a warp a position

template <class T>
__global__ void __launch_bounds__(kChunkThreads)
    summary_kernel(Layout layout, int d, Rows<const T> Q, const float* __restrict__ sums,
                   float* __restrict__ summary) {
  extern __shared__ float x[];  // (kChunk, d + 1)
  __shared__ float partial[kChunkThreads];
  const Chunk chunk = chunk_of_block(layout);
  if (chunk.n <= 0) return;
  load_chunk(x, Q, Q, chunk, d, d);
  __syncthreads();
  running_sums(x, partial, sums, chunk.n, d, [&](int p, int f, float sum) { x[p * (d + 1) + f] = sum; });
  const int lane = threadIdx.x % 32;
  for (int p = threadIdx.x / 32; p < chunk.n; p += kChunkThreads / 32) {
    float square = 0.0f;
    for (int c = lane; c < d; c += 32) square += x[p * (d + 1) + c] * x[p * (d + 1) + c];
    const float inverse = 1.0f / fmaxf(sqrtf(warp_sum(square)), 1e-12f);
    for (int c = lane; c < d; c += 32) summary[(chunk.first + p) * d + c] = x[p * (d + 1) + c] * inverse;
  }
}

// ---- scores: 64 rows a block, 16 a warp

constexpr int kScoreRows = 64, kScoreThreads = 128;

// h (16 x D, as A fragments) of ReLU(in W^T + b).
template <int D>
__device__ __forceinline__ void hidden(uint32_t (&in)[D / 16][4], const bf16* W, const float* b, int lane) {
  uint32_t out[D / 16][4];
#pragma unroll
  for (int n = 0; n < D / 16; ++n) {
    float low[4], high[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      low[e] = b[n * 16 + lane % 4 * 2 + e % 2];
      high[e] = b[n * 16 + 8 + lane % 4 * 2 + e % 2];
    }
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t w[4];
      load_b(w, W + n * 16 * (D + 8) + k * 16, D + 8, lane);
      mma(low, in[k], w[0], w[1]);
      mma(high, in[k], w[2], w[3]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      low[e] = fmaxf(low[e], 0.0f);
      high[e] = fmaxf(high[e], 0.0f);
    }
    out[n][0] = pack(low[0], low[1]);
    out[n][1] = pack(low[2], low[3]);
    out[n][2] = pack(high[0], high[1]);
    out[n][3] = pack(high[2], high[3]);
  }
#pragma unroll
  for (int n = 0; n < D / 16; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) in[n][e] = out[n][e];
  }
}

template <int D>  // 2 d
__global__ void __launch_bounds__(kScoreThreads)
    scores_kernel(Layout layout, Rows<const bf16> K, Rows<const float> summary, ScoreWeights weights,
                  float* __restrict__ scores) {
  extern __shared__ __align__(16) bf16 tiles[];
  bf16* x = tiles;                      // (kScoreRows, D + 8)
  bf16* W1 = x + kScoreRows * (D + 8);  // (D, D + 8)
  bf16* W2 = W1 + D * (D + 8);
  float* b1 = reinterpret_cast<float*>(W2 + D * (D + 8));
  float* b2 = b1 + D;
  float* w3 = b2 + D;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kScoreRows;
  const int64_t used = layout.cu_seqlens[layout.batch];
  if (first >= used) return;
  for (int i = threadIdx.x; i < D * D; i += kScoreThreads) {
    W1[i / D * (D + 8) + i % D] = __float2bfloat16_rn(weights.w1[i]);
    W2[i / D * (D + 8) + i % D] = __float2bfloat16_rn(weights.w2[i]);
  }
  for (int i = threadIdx.x; i < D; i += kScoreThreads) {
    b1[i] = weights.b1[i];
    b2[i] = weights.b2[i];
    w3[i] = weights.w3[i];
  }
  for (int i = threadIdx.x; i < kScoreRows * D; i += kScoreThreads) {
    const int64_t row = first + i / D;
    const int c = i % D;
    bf16 value = __float2bfloat16_rn(0.0f);
    if (row < used)
      value = c < D / 2 ? K.data[row * K.stride + c]
                        : __float2bfloat16_rn(summary.data[row * summary.stride + c - D / 2]);
    x[i / D * (D + 8) + c] = value;
  }
  __syncthreads();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t in[D / 16][4];
#pragma unroll
  for (int k = 0; k < D / 16; ++k) load_a(in[k], x + warp * 16 * (D + 8) + k * 16, D + 8, lane);
  hidden<D>(in, W1, b1, lane);
  hidden<D>(in, W2, b2, lane);
  float sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int n = 0; n < D / 16; ++n) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const __nv_bfloat162 pair = *reinterpret_cast<const __nv_bfloat162*>(&in[n][r]);
      const float* w = w3 + n * 16 + r / 2 * 8 + lane % 4 * 2;
      sum[r % 2] += __low2float(pair) * w[0] + __high2float(pair) * w[1];
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
    sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
    const int64_t row = first + warp * 16 + lane / 4 + 8 * half;
    if (lane % 4 == 0 && row < used) scores[row] = sum[half] + weights.b3[0];
  }
}

// ---- the best k of a growing sequence, one warp

// Larger is better: the value on top, then the earlier position.
__device__ __forceinline__ uint64_t ordered(uint32_t value, uint32_t position) {
  return static_cast<uint64_t>(value) << 32 | (0xffffffffu - position);
}
__device__ __forceinline__ uint32_t ordered_bits(float x) {
  const uint32_t bits = __float_as_uint(x == 0.0f ? 0.0f : x);  // -0 and 0 are equal
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ uint32_t position_of(uint64_t entry) {
  return 0xffffffffu - static_cast<uint32_t>(entry);
}

// The k largest so far, in descending order: slot s is entry s / 32 of lane s % 32; 0 where nothing came yet.
template <int E>
struct Best {
  uint64_t entry[E] = {};
  uint64_t least = 0;  // in slot k - 1

  // Offers each lane's candidate (0: none) in the order of lanes. chosen() runs in the lane of one that is
  // taken, evicted(position, by) in one lane for each that has to go.
  template <class Chosen, class Evicted>
  __device__ void offer(uint64_t candidate, int k, int lane, const Chosen& chosen, const Evicted& evicted) {
    uint32_t left = 0xffffffffu;
    while (true) {
      const uint32_t takers = __ballot_sync(0xffffffffu, candidate > least) & left;
      if (takers == 0) return;
      const int source = __ffs(static_cast<int>(takers)) - 1;
      left = source == 31 ? 0 : 0xffffffffu << (source + 1);
      const uint64_t fresh = __shfl_sync(0xffffffffu, candidate, source);
      if (lane == source) {
        chosen();
        if (least != 0) evicted(position_of(least), position_of(fresh));
      }
      int place = 0;
#pragma unroll
      for (int e = 0; e < E; ++e) place += __popc(__ballot_sync(0xffffffffu, entry[e] > fresh));
#pragma unroll
      for (int e = E - 1; e >= 0; --e) {
        const uint64_t before = __shfl_up_sync(0xffffffffu, entry[e], 1);
        const uint64_t carry = e > 0 ? __shfl_sync(0xffffffffu, entry[e > 0 ? e - 1 : 0], 31) : 0;
        const int slot = e * 32 + lane;
        if (slot == place)
          entry[e] = fresh;
        else if (slot > place)
          entry[e] = lane == 0 ? carry : before;
        if (slot >= k) entry[e] = 0;
      }
#pragma unroll
      for (int e = 0; e < E; ++e) {
        if (e == (k - 1) / 32) least = __shfl_sync(0xffffffffu, entry[e], (k - 1) % 32);
      }
      if (left == 0) return;
    }
  }
};

constexpr int kTopkWarps = 1;  // a warp a block: sequences spread over the multiprocessors

template <int E>
__global__ void __launch_bounds__(kTopkWarps * 32)
    topk_kernel(Layout layout, int k, const float* __restrict__ scores, int64_t* evicted) {
  const int lane = threadIdx.x;
  const int64_t begin = layout.cu_seqlens[blockIdx.x];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.x + 1] - begin);
  Best<E> best;
  int64_t* out = evicted + begin;
  for (int p0 = 0; p0 < n; p0 += 32) {
    const int p = p0 + lane;
    uint64_t candidate = 0;
    if (p < n) {
      candidate = ordered(ordered_bits(scores[begin + p]), p);
      out[p] = p;
    }
    best.offer(
        candidate, k, lane, [&] { out[p] = n; }, [&](uint32_t position, uint32_t by) { out[position] = by; });
    __syncwarp();
  }
}

template <int E>
__global__ void __launch_bounds__(kTopkWarps * 32)
    sample_kernel(Layout layout, int k, SampleKey key, bool fill_with_pad, int64_t padded_length,
                  int64_t* __restrict__ sampled) {
  const int lane = threadIdx.x;
  const int64_t begin = layout.cu_seqlens[blockIdx.x];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.x + 1] - begin);
  const uint2 seed = make_uint2(static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32));
  const auto step = static_cast<uint32_t>(*key.step);
  Best<E> best;
  for (int p0 = 0; p0 < n; p0 += 32) {
    const int p = p0 + lane;
    const uint4 words = philox(make_uint4(p / 4, blockIdx.x, step, key.purpose_and_layer), seed);
    const uint32_t noise = p % 4 == 0 ? words.x : p % 4 == 1 ? words.y : p % 4 == 2 ? words.z : words.w;
    best.offer(
        p < n ? ordered(noise, p) : 0, k, lane, [] {}, [](uint32_t, uint32_t) {});
  }
  int64_t* out = sampled + static_cast<int64_t>(blockIdx.x) * k;
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const int slot = e * 32 + lane;
    if (slot >= k) continue;
    const int64_t pad = slot;  // sequences shorter than k: their n positions, then the padded ones from n on
    out[slot] = slot < n ? position_of(best.entry[e]) : fill_with_pad && pad < padded_length ? pad : -1;
  }
}

// ---- targets: a warp a sampled key, lanes over the queries

constexpr int kTargetWarps = 8;

template <class T>
__global__ void __launch_bounds__(kTargetWarps * 32)
    targets_kernel(Layout layout, int d, int k, Rows<const T> Q, Rows<const T> K,
                   const int64_t* __restrict__ sampled, const int64_t* __restrict__ pad_queries,
                   float* __restrict__ targets) {
  extern __shared__ float keys[];  // (kTargetWarps, d)
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, s = blockIdx.x * kTargetWarps + warp;
  if (s >= k) return;
  const int64_t begin = layout.cu_seqlens[blockIdx.y], n = layout.cu_seqlens[blockIdx.y + 1] - begin;
  const int64_t place = static_cast<int64_t>(blockIdx.y) * k + s, j = sampled[place];
  float sum = 0.0f;
  if (j >= 0) {
    float* key = keys + warp * d;
    if (j < n) {
      for (int c = lane; c < d; c += 32) key[c] = to_float(K.data[(begin + j) * K.stride + c]);
      __syncwarp();
      for (int64_t i = j + lane; i < n; i += 32) {
        const T* q = Q.data + (begin + i) * Q.stride;
        float dot = 0.0f;
        for (int c = 0; c < d; ++c) dot = fmaf(to_float(q[c]), key[c], dot);
        sum += sigmoid(dot);
      }
    }
    sum = warp_sum(sum);
    sum += 0.5f * static_cast<float>(max(n + pad_queries[blockIdx.y] - max(n, j), int64_t{0}));
  }
  if (lane == 0) targets[place] = sum;
}

// The same for bf16 on tensor cores: a block takes 32 keys of a sequence, each of its warps 16 queries in
// turn; keys are the rows of the product, so that a key's sum stays in its lanes.
constexpr int kTargetKeys = 32, kTargetQueries = 16;

__device__ __forceinline__ uint32_t load_word(const bf16* p) { return *reinterpret_cast<const uint32_t*>(p); }

template <int D>
__global__ void __launch_bounds__(kTargetWarps * 32)
    targets_by_tiles_kernel(Layout layout, int k, Rows<const bf16> Q, Rows<const bf16> K,
                            const int64_t* __restrict__ sampled, const int64_t* __restrict__ pad_queries,
                            float* __restrict__ targets) {
  __shared__ float sums[kTargetWarps][kTargetKeys];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4 * 2;
  const int64_t begin = layout.cu_seqlens[blockIdx.y], n = layout.cu_seqlens[blockIdx.y + 1] - begin;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * k + blockIdx.x * kTargetKeys;
  const int here = min(kTargetKeys, k - static_cast<int>(blockIdx.x) * kTargetKeys);
  int64_t place[4];  // of keys g, g + 8, g + 16, g + 24; n: none, or padded
  uint32_t a[2][D / 16][4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int key = g + 8 * r;
    const int64_t j = key < here ? sampled[first + key] : -1;
    place[r] = j >= 0 && j < n ? j : n;
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      const bf16* row = K.data + (begin + j) * K.stride + d * 16 + c;
      a[r / 2][d][r % 2] = place[r] < n ? load_word(row) : 0;
      a[r / 2][d][r % 2 + 2] = place[r] < n ? load_word(row + 8) : 0;
    }
  }
  float sum[4] = {};
  for (int64_t i0 = warp * kTargetQueries; i0 < n; i0 += kTargetWarps * kTargetQueries) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t q0 = i0 + 8 * half, query = q0 + g;
      float dots[2][4] = {};
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        const bf16* row = Q.data + (begin + query) * Q.stride + d * 16 + c;
        const uint32_t b0 = query < n ? load_word(row) : 0, b1 = query < n ? load_word(row + 8) : 0;
        mma(dots[0], a[0][d], b0, b1);
        mma(dots[1], a[1][d], b0, b1);
      }
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int64_t i = q0 + c + e;
          if (i < n && i >= place[r]) sum[r] += sigmoid(dots[r / 2][r % 2 * 2 + e]);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
    sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
    if (lane % 4 == 0) sums[warp][g + 8 * r] = sum[r];
  }
  __syncthreads();
  if (threadIdx.x >= here) return;
  const int64_t j = sampled[first + threadIdx.x];
  float total = 0.0f;
  if (j >= 0) {
    for (int w = 0; w < kTargetWarps; ++w) total += sums[w][threadIdx.x];
    total += 0.5f * static_cast<float>(max(n + pad_queries[blockIdx.y] - max(n, j), int64_t{0}));
  }
  targets[first + threadIdx.x] = total;
}

// ---- ranking loss: a block a sequence; then one block for the mean

__global__ void pairs_kernel(int k, const float* __restrict__ scores, const float* __restrict__ targets,
                             const bool* __restrict__ valid, float* __restrict__ sums,
                             float* __restrict__ pairs, float* __restrict__ slopes) {
  extern __shared__ float shared[];  // (k) scores, (k) targets; then (blockDim) losses
  float *s = shared, *y = shared + k, *partial = shared + 2 * k;
  const int64_t base = static_cast<int64_t>(blockIdx.x) * k;
  for (int j = threadIdx.x; j < k; j += blockDim.x) {
    s[j] = scores[base + j];
    y[j] = targets[base + j];
  }
  __syncthreads();
  int count = 0;
  for (int j = 0; j < k; ++j) count += valid[base + j];
  float loss = 0.0f;
  for (int j = threadIdx.x; j < k; j += blockDim.x) {
    float slope = 0.0f;
    for (int l = 0; l < k && valid[base + j]; ++l) {
      if (!valid[base + l]) continue;
      const float x = s[j] - s[l];
      const float t = 0.5f * ((y[j] > y[l] ? 1.0f : 0.0f) + (y[j] >= y[l] ? 1.0f : 0.0f));
      loss += fmaxf(x, 0.0f) - x * t + log1pf(__expf(-fabsf(x)));
      slope += sigmoid(x) - t;
    }
    slopes[base + j] = 2.0f * slope;  // the pair (l, j) pulls at s_j as (j, l) does
  }
  partial[threadIdx.x] = loss;
  __syncthreads();
  if (threadIdx.x == 0) {
    float sum = 0.0f;
    for (int i = 0; i < blockDim.x; ++i) sum += partial[i];
    sums[blockIdx.x] = sum;
    pairs[blockIdx.x] = static_cast<float>(count) * static_cast<float>(count);
  }
}

__global__ void mean_kernel(int batch, int k, const float* __restrict__ sums, const float* __restrict__ pairs,
                            float* __restrict__ loss, float* __restrict__ slopes) {
  __shared__ float count;
  if (threadIdx.x < 32) {
    float a = 0.0f, b = 0.0f;
    for (int i = threadIdx.x; i < batch; i += 32) {
      a += sums[i];
      b += pairs[i];
    }
    a = warp_sum(a);
    b = warp_sum(b);
    if (threadIdx.x == 0) {
      count = fmaxf(b, 1.0f);
      loss[0] = a / count;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < batch * k; i += blockDim.x) slopes[i] /= count;
}

// f(E): entries a lane.
template <class F>
void with_entries(int64_t k, const F& f) {
  if (k <= 32) return f(std::integral_constant<int, 1>());
  if (k <= 64) return f(std::integral_constant<int, 2>());
  if (k <= 128) return f(std::integral_constant<int, 4>());
  f(std::integral_constant<int, 8>());
}

template <int D>
void launch_scores(const Layout& layout, Rows<const bf16> K, Rows<const float> summary,
                   const ScoreWeights& weights, float* scores, cudaStream_t stream) {
  constexpr int kBytes = (kScoreRows + 2 * D) * (D + 8) * sizeof(bf16) + 3 * D * sizeof(float);
  if (kBytes > 48 * 1024)
    cudaFuncSetAttribute(scores_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  scores_kernel<D>
      <<<static_cast<unsigned>(ceil_div(layout.rows, kScoreRows)), kScoreThreads, kBytes, stream>>>(
          layout, K, summary, weights, scores);
}

std::string sequences_text(const Layout& layout, int64_t k) {
  return "sequences " + std::to_string(layout.batch) + ", k " + std::to_string(k);
}

}  // namespace

int64_t summary_scratch_floats(const Layout& layout, int64_t d) {
  return layout.batch * chunks_of(layout) * d;
}

template <class T>
void query_summary_causal(const Layout& layout, int64_t d_in, Rows<const T> Q, float* summary, float* scratch,
                          cudaStream_t stream) {
  const int d = static_cast<int>(d_in);
  chunk_sums_kernel<T, false>
      <<<chunk_grid(layout), kChunkThreads, 0, stream>>>(layout, d, d, Q, Q, nullptr, scratch);
  const size_t bytes = sizeof(float) * kChunk * (d + 1);
  if (bytes > 40 * 1024)
    cudaFuncSetAttribute(summary_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(bytes));
  summary_kernel<T><<<chunk_grid(layout), kChunkThreads, bytes, stream>>>(layout, d, Q, scratch, summary);
  check_launch("query_summary_causal",
               "sequences " + std::to_string(layout.batch) + ", d " + std::to_string(d));
}

bool has_key_scores(int64_t d) { return d == 8 || d == 16 || d == 32 || d == 64; }

void key_scores(const Layout& layout, int64_t d, Rows<const bf16> K, Rows<const float> summary,
                const ScoreWeights& weights, float* scores, cudaStream_t stream) {
  if (d == 8) launch_scores<16>(layout, K, summary, weights, scores, stream);
  if (d == 16) launch_scores<32>(layout, K, summary, weights, scores, stream);
  if (d == 32) launch_scores<64>(layout, K, summary, weights, scores, stream);
  if (d == 64) launch_scores<128>(layout, K, summary, weights, scores, stream);
  check_launch("key_scores", "rows " + std::to_string(layout.rows) + ", d " + std::to_string(d));
}

void cumulative_topk(const Layout& layout, int64_t k, const float* scores, int64_t* evicted,
                     cudaStream_t stream) {
  with_entries(k, [&](auto e) {
    topk_kernel<decltype(e)::value><<<static_cast<unsigned>(layout.batch), kTopkWarps * 32, 0, stream>>>(
        layout, static_cast<int>(k), scores, evicted);
  });
  check_launch("cumulative_topk", sequences_text(layout, k));
}

void sample_positions(const Layout& layout, int64_t k, const SampleKey& key, bool fill_with_pad,
                      int64_t padded_length, int64_t* sampled, cudaStream_t stream) {
  with_entries(k, [&](auto e) {
    sample_kernel<decltype(e)::value><<<static_cast<unsigned>(layout.batch), kTopkWarps * 32, 0, stream>>>(
        layout, static_cast<int>(k), key, fill_with_pad, padded_length, sampled);
  });
  check_launch("sample_positions", sequences_text(layout, k));
}

template <class T>
void ranking_targets(const Layout& layout, int64_t d, int64_t k, Rows<const T> Q, Rows<const T> K,
                     const int64_t* sampled, const int64_t* pad_queries, float* targets,
                     cudaStream_t stream) {
  if constexpr (std::is_same_v<T, bf16>) {
    // Words of two features must be aligned.
    const bool words = Q.stride % 2 == 0 && K.stride % 2 == 0 &&
                       reinterpret_cast<uintptr_t>(Q.data) % 4 == 0 &&
                       reinterpret_cast<uintptr_t>(K.data) % 4 == 0;
    if (words && (d == 16 || d == 32 || d == 64)) {
      const dim3 tiles(static_cast<unsigned>(ceil_div(k, kTargetKeys)), static_cast<unsigned>(layout.batch));
      const auto kernel = d == 16   ? targets_by_tiles_kernel<16>
                          : d == 32 ? targets_by_tiles_kernel<32>
                                    : targets_by_tiles_kernel<64>;
      kernel<<<tiles, kTargetWarps * 32, 0, stream>>>(layout, static_cast<int>(k), Q, K, sampled, pad_queries,
                                                      targets);
      check_launch("ranking_targets", sequences_text(layout, k));
      return;
    }
  }
  const dim3 grid(static_cast<unsigned>(ceil_div(k, kTargetWarps)), static_cast<unsigned>(layout.batch));
  targets_kernel<T><<<grid, kTargetWarps * 32, kTargetWarps * d * sizeof(float), stream>>>(
      layout, static_cast<int>(d), static_cast<int>(k), Q, K, sampled, pad_queries, targets);
  check_launch("ranking_targets", sequences_text(layout, k));
}

void ranking_loss(int64_t batch, int64_t k, const float* scores, const float* targets, const bool* valid,
                  float* loss, float* slopes, float* scratch, cudaStream_t stream) {
  constexpr int kBlock = 64;
  pairs_kernel<<<static_cast<unsigned>(batch), kBlock, (2 * k + kBlock) * sizeof(float), stream>>>(
      static_cast<int>(k), scores, targets, valid, scratch, scratch + batch, slopes);
  check_launch("ranking_loss", "sequences " + std::to_string(batch) + ", k " + std::to_string(k));
  mean_kernel<<<1, 1024, 0, stream>>>(static_cast<int>(batch), static_cast<int>(k), scratch, scratch + batch,
                                      loss, slopes);
  check_launch("ranking_loss's mean", "sequences " + std::to_string(batch));
}

#define HAX_INSTANTIATE(T)                                                                        \
  template void query_summary_causal<T>(const Layout&, int64_t, Rows<const T>, float*, float*,    \
                                        cudaStream_t);                                            \
  template void ranking_targets<T>(const Layout&, int64_t, int64_t, Rows<const T>, Rows<const T>, \
                                   const int64_t*, const int64_t*, float*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
