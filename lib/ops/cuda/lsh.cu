// Blocks of chunk_grid centre and hash the positions of a chunk: running sums begin with the sums of the
// chunks before (chunk_sums.cuh), means and norms of whole sequences come from the sums of all chunks, and a
// thread projects one key or query. Ranks are counted by comparing all pairs of a short sequence; of long
// ones by a warp each, 32 positions at a time.
#include "lib/ops/cuda/chunk_sums.cuh"
#include "lib/ops/cuda/lsh.h"
#include "lib/ops/cuda/order_by_pairs.cuh"

namespace hax::ops::cuda {
namespace {

static_assert(2 * kChunk == kChunkThreads, "a thread a key and a thread a query of the chunk");

constexpr int kTogether = 8;  // projections that a thread makes at once

// Columns of the matrix in shared memory: h, and zeros up to a multiple of kTogether.
__host__ __device__ constexpr int padded_bits(int h) { return (h + kTogether - 1) / kTogether * kTogether; }

// The bin of x (d) by R (d, padded_bits(h)), 16-byte aligned; projections are rounded to T.
template <class T>
__device__ __forceinline__ int bin_of(const float* x, const float* R, int d, int h, bool sign) {
  const int columns = padded_bits(h);
  int bin = 0;
  float best = -INFINITY;
  for (int b0 = 0; b0 < h; b0 += kTogether) {
    float projection[kTogether] = {};
#pragma unroll 4
    for (int k = 0; k < d; ++k) {
      const float value = x[k];
#pragma unroll
      for (int b = 0; b < kTogether; b += 4) {
        const float4 r = *reinterpret_cast<const float4*>(R + k * columns + b0 + b);
        projection[b] = fmaf(value, r.x, projection[b]);
        projection[b + 1] = fmaf(value, r.y, projection[b + 1]);
        projection[b + 2] = fmaf(value, r.z, projection[b + 2]);
        projection[b + 3] = fmaf(value, r.w, projection[b + 3]);
      }
    }
#pragma unroll
    for (int b = 0; b < kTogether; ++b) {
      if (b0 + b >= h) continue;
      const float value = rounded<T>(projection[b]);
      if (sign) {
        bin |= static_cast<int>(value > 0.0f) << (b0 + b);
      } else if (value > best) {
        best = value;
        bin = b0 + b;
      }
    }
  }
  return bin;
}

__device__ __forceinline__ int chunks_in(int length) { return (length + kChunk - 1) / kChunk; }

// The mean of feature f over a padded sequence of which `chunk` is a part, as T.
template <class T>
__device__ __forceinline__ float padded_mean(const float* __restrict__ sums, int features, int f,
                                             const Chunk& chunk, float padded_length) {
  return rounded<T>(sum_of_chunks(sums, features, f, chunks_in(chunk.length)) / padded_length);
}

// squares (batch, chunks, 2 d): sums of (x - mean)^2 over the chunk's positions, differences rounded to T.
template <class T>
__global__ void __launch_bounds__(kChunkThreads)
    chunk_squares_kernel(Layout layout, int d, float padded_length, Rows<const T> K, Rows<const T> Q,
                         const float* __restrict__ sums, float* __restrict__ squares) {
  const int features = 2 * d;
  const Chunk chunk = chunk_of_block(layout);
  if (chunk.n <= 0) return;
  for (int f = threadIdx.x; f < features; f += kChunkThreads) {
    const Rows<const T>& from = f < d ? K : Q;
    const T* column = from.data + (f < d ? f : f - d);
    const float mean = padded_mean<T>(sums, features, f, chunk, padded_length);
    float sum = 0.0f;
#pragma unroll 16
    for (int p = 0; p < chunk.n; ++p) {
      const float x = rounded<T>(to_float(column[(chunk.first + p) * from.stride]) - mean);
      sum += x * x;
    }
    squares[(static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * features + f] = sum;
  }
}

// W: what the centred numbers, the matrix and the projections are rounded to: T over whole sequences, else
// fp32. squares: of whole sequences.
template <class T, class W>
__global__ void __launch_bounds__(kChunkThreads)
    hash_kernel(Layout layout, LshShape shape, HashCentring centring, Rows<const T> K, Rows<const T> Q,
                const float* __restrict__ R_in, const float* __restrict__ sums,
                const float* __restrict__ squares, int64_t* __restrict__ query_bin,
                int64_t* __restrict__ key_bin) {
  extern __shared__ __align__(16) float shared[];
  __shared__ float partial[kChunkThreads];
  const int d = static_cast<int>(shape.d), h = static_cast<int>(shape.h), features = 2 * d;
  const int columns = padded_bits(h);
  float *R = shared, *x = R + d * columns, *mean = x + kChunk * (features + 1), *norm = mean + features;
  const Chunk chunk = chunk_of_block(layout);
  if (chunk.n <= 0) return;
  for (int i = threadIdx.x; i < d * columns; i += kChunkThreads)
    R[i] = i % columns < h ? rounded<W>(R_in[i / columns * h + i % columns]) : 0.0f;
  load_chunk(x, K, Q, chunk, d, features);
  if (centring == HashCentring::whole_sequence) {
    const auto length = static_cast<float>(shape.padded_length);
    for (int f = threadIdx.x; f < features; f += kChunkThreads) {
      const float m = padded_mean<W>(sums, features, f, chunk, length);
      const float square = sum_of_chunks(squares, features, f, chunks_in(chunk.length)) +
                           (length - static_cast<float>(chunk.length)) * m * m;  // PAD holds -mean
      mean[f] = m;
      norm[f] = fmaxf(rounded<W>(sqrtf(square)), 1e-12f);
    }
  }
  __syncthreads();
  if (centring == HashCentring::running_mean) {
    running_sums(x, partial, sums, features, [&](int p, float value, float sum) {
      return value - sum / static_cast<float>(chunk.position + p + 1);
    });
  } else if (centring == HashCentring::whole_sequence) {
    for_chunk(
        features,
        [&](int p, int f) { return rounded<W>(rounded<W>(x[p * (features + 1) + f] - mean[f]) / norm[f]); },
        [&](int p, int f, float value) { x[p * (features + 1) + f] = value; });
    __syncthreads();
  }
  const int p = threadIdx.x % kChunk, side = threadIdx.x / kChunk;
  if (p >= chunk.n) return;
  (side == 0 ? key_bin : query_bin)[chunk.first + p] =
      bin_of<W>(x + p * (features + 1) + side * d, R, d, h, shape.sign);
}

__global__ void __launch_bounds__(kPairThreads)
    ranks_by_pairs_kernel(Layout layout, const int64_t* __restrict__ query_bin,
                          const int64_t* __restrict__ key_bin, int64_t* __restrict__ rank,
                          int64_t* __restrict__ count) {
  extern __shared__ __align__(16) uint32_t bins[];  // of keys
  const int64_t begin = layout.cu_seqlens[blockIdx.y];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.y + 1] - begin);
  const int tile = static_cast<int>(gridDim.x - 1 - blockIdx.x);  // the longest work first
  const int p = tile * kPairThreads + static_cast<int>(threadIdx.x), p0 = p / 32 * 32;
  if (tile * kPairThreads >= n) return;
  for (int i = threadIdx.x; i < (tile + 1) * kPairThreads; i += kPairThreads)
    bins[i] = i < n ? static_cast<uint32_t>(key_bin[begin + i]) : 0xffffffffu;
  const uint32_t query = p < n ? static_cast<uint32_t>(query_bin[begin + p]) : 0u;
  __syncthreads();
  const uint32_t key = bins[p];
  int before = 0, seen = 0;
  for (int i = 0; i < p0; i += 32) {
    before += count_32(bins + i, [&](uint32_t v) { return v == key; });
    seen += count_32(bins + i, [&](uint32_t v) { return v == query; });
  }
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    before += p0 + i < p && bins[p0 + i] == key;
    seen += p0 + i <= p && bins[p0 + i] == query;
  }
  if (p >= n) return;
  rank[begin + p] = before;
  count[begin + p] = seen;
}

// One warp a sequence; counters hold the keys of each bin so far.
__global__ void __launch_bounds__(32)
    ranks_kernel(Layout layout, int bins, const int64_t* __restrict__ query_bin,
                 const int64_t* __restrict__ key_bin, int64_t* __restrict__ rank,
                 int64_t* __restrict__ count) {
  extern __shared__ int counter[];
  const int lane = threadIdx.x;
  const int64_t begin = layout.cu_seqlens[blockIdx.x];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.x + 1] - begin);
  for (int i = lane; i < bins; i += 32) counter[i] = 0;
  __syncwarp();
  for (int p0 = 0; p0 < n; p0 += 32) {
    const int p = p0 + lane;
    const bool real = p < n;
    const int key = real ? static_cast<int>(key_bin[begin + p]) : -1;
    const int query = real ? static_cast<int>(query_bin[begin + p]) : -2;
    const uint32_t same = __match_any_sync(0xffffffffu, key);
    const uint32_t before = same & ((1u << lane) - 1);
    const int base = real ? counter[key] : 0;
    int seen = real ? counter[query] : 0;
#pragma unroll
    for (int other = 0; other < 32; ++other) {
      const int theirs = __shfl_sync(0xffffffffu, key, other);
      seen += theirs == query && other <= lane;
    }
    __syncwarp();
    if (real && before == 0) counter[key] = base + __popc(same);
    __syncwarp();
    if (!real) continue;
    rank[begin + p] = base + __popc(before);
    count[begin + p] = seen;
  }
}

}  // namespace

int64_t lsh_scratch_floats(const Layout& layout, const LshShape& shape) {
  return 2 * layout.batch * 2 * shape.d * chunks_of(layout);
}

template <class T>
void lsh(const Layout& layout, const LshShape& shape, HashCentring centring, Rows<const T> K, Rows<const T> Q,
         const float* R, int64_t* query_bin, int64_t* key_bin, int64_t* rank, int64_t* count, float* scratch,
         cudaStream_t stream) {
  const int d = static_cast<int>(shape.d), features = 2 * d;
  const auto batch = static_cast<unsigned>(layout.batch);
  const std::string text = "sequences " + std::to_string(layout.batch) + ", d " + std::to_string(shape.d) +
                           ", h " + std::to_string(shape.h);
  float *sums = scratch, *squares = sums + layout.batch * chunks_of(layout) * features;
  if (centring != HashCentring::none) {
    chunk_sums_kernel<T><<<chunk_grid(layout), kChunkThreads, 0, stream>>>(layout, d, features, K, Q, sums);
    check_launch("lsh's sums", text);
  }
  const bool whole = centring == HashCentring::whole_sequence;
  if (whole) {
    chunk_squares_kernel<T><<<chunk_grid(layout), kChunkThreads, 0, stream>>>(
        layout, d, static_cast<float>(shape.padded_length), K, Q, sums, squares);
    check_launch("lsh's squares", text);
  }
  const int64_t columns = padded_bits(static_cast<int>(shape.h));
  const size_t bytes = sizeof(float) * (kChunk * (features + 1) + d * columns + 2 * features);
  const auto hash = whole ? hash_kernel<T, T> : hash_kernel<T, float>;
  if (bytes > 40 * 1024)
    cudaFuncSetAttribute(hash, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  hash<<<chunk_grid(layout), kChunkThreads, bytes, stream>>>(layout, shape, centring, K, Q, R, sums, squares,
                                                             query_bin, key_bin);
  check_launch("lsh's bins", text);
  if (layout.max_seqlen <= kPairsLongest) {
    ranks_by_pairs_kernel<<<pairs_grid(layout), kPairThreads, pairs_bytes(layout), stream>>>(
        layout, query_bin, key_bin, rank, count);
    check_launch("lsh's ranks", text);
    return;
  }
  ranks_kernel<<<batch, 32, shape.bins * sizeof(int), stream>>>(layout, static_cast<int>(shape.bins),
                                                                query_bin, key_bin, rank, count);
  check_launch("lsh's ranks", text);
}

template void lsh<float>(const Layout&, const LshShape&, HashCentring, Rows<const float>, Rows<const float>,
                         const float*, int64_t*, int64_t*, int64_t*, int64_t*, float*, cudaStream_t);
template void lsh<__nv_bfloat16>(const Layout&, const LshShape&, HashCentring, Rows<const __nv_bfloat16>,
                                 Rows<const __nv_bfloat16>, const float*, int64_t*, int64_t*, int64_t*,
                                 int64_t*, float*, cudaStream_t);

}  // namespace hax::ops::cuda
