// Blocks of chunk_grid centre and hash the positions of a chunk: running sums begin with the sums of the
// chunks before (chunk_sums.cuh), means and norms of whole sequences come from the sums of all chunks, and a
// thread projects one key or query. Ranks are counted by a block a sequence, and where there are too many
// bins by a warp a sequence, 32 positions at a time.
#include "lib/ops/cuda/chunk_sums.cuh"
#include "lib/ops/cuda/lsh.h"

namespace hax::ops::cuda {
namespace {

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

// The means of a team's features over a padded sequence of which `chunk` is a part, as T.
template <class T, class Team>
__device__ __forceinline__ void padded_means(const Team& team, float (&mean)[Team::F],
                                             const float* __restrict__ sums, int d, bool fours,
                                             const Chunk& chunk, float padded_length, float* shared) {
#pragma unroll
  for (int i = 0; i < Team::F; ++i) mean[i] = 0.0f;
  team.add_chunks(mean, sums, 2 * d, d, fours, chunks_in(chunk.length));
  team.sum(mean, shared);
#pragma unroll
  for (int i = 0; i < Team::F; ++i) mean[i] = rounded<T>(mean[i] / padded_length);
}

// squares (batch, chunks, 2, d): sums of (x - mean)^2 over the chunk's positions, differences rounded to T.
template <class T, class Team>
__global__ void __launch_bounds__(Team::kThreads)
    chunk_squares_kernel(Layout layout, float padded_length, Features<T> K, Features<T> Q, bool fours,
                         const float* __restrict__ sums, float* __restrict__ squares) {
  __shared__ float shared[2 * Team::kShared];
  const Chunk chunk = chunk_of_block(layout);
  if (chunk.n <= 0) return;
  const Team team(threadIdx.x);
  const int side = static_cast<int>(blockIdx.z), d = K.d;
  float x[Team::kRows][Team::F], mean[Team::F], sum[Team::F] = {};
  team.load(x, side_of(side, K, Q), chunk);
  padded_means<T>(team, mean, sums + side * d, d, fours, chunk, padded_length, shared);
#pragma unroll
  for (int r = 0; r < Team::kRows; ++r) {
#pragma unroll
    for (int i = 0; i < Team::F; ++i) {
      const float centred = rounded<T>(x[r][i] - mean[i]);
      if (team.row(r) < chunk.n) sum[i] += centred * centred;
    }
  }
  team.sum(sum, shared + Team::kShared);
  if (team.group != 0) return;
  float* own = squares + ((static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * 2 + side) * d;
  team.store(own, sum, d, fours);
}

// W: what the centred numbers, the matrix and the projections are rounded to: T over whole sequences, else
// fp32. squares: of whole sequences. A team a side, the keys' first.
template <class T, class W, class Team>
__global__ void __launch_bounds__(2 * Team::kThreads)
    hash_kernel(Layout layout, LshShape shape, HashCentring centring, Features<T> K, Features<T> Q,
                bool fours, const float* __restrict__ R_in, const float* __restrict__ sums,
                const float* __restrict__ squares, int64_t* __restrict__ query_bin,
                int64_t* __restrict__ key_bin) {
  extern __shared__ __align__(16) float dynamic[];
  __shared__ float partial[2][2 * Team::kShared];
  const int d = static_cast<int>(shape.d), h = static_cast<int>(shape.h), columns = padded_bits(h);
  const int pitch = 2 * d + 1;
  float *R = dynamic, *centred = R + d * columns;  // (d, columns), (kChunk, pitch)
  const Chunk chunk = chunk_of_block(layout);
  if (chunk.n <= 0) return;
  const int side = static_cast<int>(threadIdx.x) / Team::kThreads;
  const Team team(static_cast<int>(threadIdx.x) % Team::kThreads);
  float x[Team::kRows][Team::F];
  team.load(x, side_of(side, K, Q), chunk);
#pragma unroll 2
  for (int i = threadIdx.x; i < d * columns; i += 2 * Team::kThreads)
    R[i] = i % columns < h ? rounded<W>(R_in[i / columns * h + i % columns]) : 0.0f;
  if (centring == HashCentring::running_mean) {
    float entering[Team::F] = {}, sum[Team::kRows][Team::F];
#pragma unroll
    for (int r = 0; r < Team::kRows; ++r) {
#pragma unroll
      for (int i = 0; i < Team::F; ++i) sum[r][i] = x[r][i];
    }
    team.add_chunks(entering, sums + side * d, 2 * d, d, fours, static_cast<int>(blockIdx.x));
    team.running(sum, entering, partial[side]);
#pragma unroll
    for (int r = 0; r < Team::kRows; ++r) {
      const auto count = static_cast<float>(chunk.position + team.row(r) + 1);
#pragma unroll
      for (int i = 0; i < Team::F; ++i) x[r][i] -= sum[r][i] / count;
    }
  } else if (centring == HashCentring::whole_sequence) {
    const auto length = static_cast<float>(shape.padded_length);
    float mean[Team::F], square[Team::F] = {};
    padded_means<W>(team, mean, sums + side * d, d, fours, chunk, length, partial[side]);
    team.add_chunks(square, squares + side * d, 2 * d, d, fours, chunks_in(chunk.length));
    team.sum(square, partial[side] + Team::kShared);
#pragma unroll
    for (int i = 0; i < Team::F; ++i) {
      square[i] += (length - static_cast<float>(chunk.length)) * mean[i] * mean[i];  // PAD holds -mean
      const float norm = fmaxf(rounded<W>(sqrtf(square[i])), 1e-12f);
#pragma unroll
      for (int r = 0; r < Team::kRows; ++r) x[r][i] = rounded<W>(rounded<W>(x[r][i] - mean[i]) / norm);
    }
  }
#pragma unroll
  for (int r = 0; r < Team::kRows; ++r) team.store(centred + team.row(r) * pitch + side * d, x[r], d, false);
  __syncthreads();
  if (threadIdx.x >= 2 * kChunk) return;  // a thread a key, then a thread a query
  const int p = static_cast<int>(threadIdx.x) % kChunk, of = static_cast<int>(threadIdx.x) / kChunk;
  if (p >= chunk.n) return;
  (of == 0 ? key_bin : query_bin)[chunk.first + p] =
      bin_of<W>(centred + p * pitch + of * d, R, d, h, shape.sign);
}

constexpr int kRankWarps = 32;      // of a block: tiles of 32 positions at a time
constexpr int64_t kFewBins = 1024;  // with counters for every tile

// A block a sequence. In a tile the keys of a bin are where the ballots of all bits agree with it; keys of
// earlier tiles are counted by bin.
__global__ void __launch_bounds__(kRankWarps * 32)
    ranks_by_tiles_kernel(Layout layout, int bins, const int64_t* __restrict__ query_bin,
                          const int64_t* __restrict__ key_bin, int64_t* __restrict__ rank,
                          int64_t* __restrict__ count) {
  extern __shared__ int counters[];  // (kRankWarps + 1, bins + 1): keys before a tile; in the last row of all
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pitch = bins + 1, bits = 32 - __clz(bins - 1);
  int *own = counters + warp * pitch, *all = counters + kRankWarps * pitch;
  const int64_t begin = layout.cu_seqlens[blockIdx.x];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.x + 1] - begin);
  for (int bin = threadIdx.x; bin < bins; bin += kRankWarps * 32) all[bin] = 0;
  for (int p = threadIdx.x; p - static_cast<int>(threadIdx.x) < n; p += kRankWarps * 32) {
    const bool real = p < n;
    const int key = real ? static_cast<int>(key_bin[begin + p]) : 0;
    const int query = real ? static_cast<int>(query_bin[begin + p]) : 0;
    for (int bin = lane; bin < bins; bin += 32) own[bin] = 0;
    uint32_t same = __ballot_sync(0xffffffffu, real), wanted = same;
    for (int b = 0; b < bits; ++b) {
      const uint32_t set = __ballot_sync(0xffffffffu, key >> b & 1);
      same &= key >> b & 1 ? set : ~set;
      wanted &= query >> b & 1 ? set : ~set;
    }
    const uint32_t before = same & ((1u << lane) - 1);
    __syncwarp();
    if (real && before == 0) own[key] = __popc(same);
    __syncthreads();
    for (int bin = warp; bin < bins; bin += kRankWarps) {
      const int here = counters[lane * pitch + bin];
      int through = here;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, through, step);
        if (lane >= step) through += other;
      }
      const int earlier = all[bin];
      counters[lane * pitch + bin] = earlier + through - here;
      __syncwarp();
      if (lane == 31) all[bin] = earlier + through;
    }
    __syncthreads();
    if (!real) continue;
    rank[begin + p] = own[key] + __popc(before);
    count[begin + p] = own[query] + __popc(wanted & (0xffffffffu >> (31 - lane)));
  }
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
  const auto batch = static_cast<unsigned>(layout.batch);
  const std::string text = "sequences " + std::to_string(layout.batch) + ", d " + std::to_string(shape.d) +
                           ", h " + std::to_string(shape.h);
  float *sums = scratch, *squares = sums + layout.batch * chunks_of(layout) * 2 * shape.d;
  const Features<T> keys = features_of(K, shape.d), queries = features_of(Q, shape.d);
  const bool fours = features_of(Rows<const float>{scratch, shape.d}, shape.d).fours;
  const bool whole = centring == HashCentring::whole_sequence;
  with_chunk_team<kLshWidest>(shape.d, [&](auto tag) {
    using Team = typename decltype(tag)::Type;
    if (centring != HashCentring::none) {
      chunk_sums_kernel<T, Team>
          <<<chunk_grid(layout, 2), Team::kThreads, 0, stream>>>(layout, keys, queries, sums);
      check_launch("lsh's sums", text);
    }
    if (whole) {
      chunk_squares_kernel<T, Team><<<chunk_grid(layout, 2), Team::kThreads, 0, stream>>>(
          layout, static_cast<float>(shape.padded_length), keys, queries, fours, sums, squares);
      check_launch("lsh's squares", text);
    }
    const auto hash = whole ? hash_kernel<T, T, Team> : hash_kernel<T, float, Team>;
    const size_t bytes =
        sizeof(float) * (kChunk * (2 * shape.d + 1) + shape.d * padded_bits(static_cast<int>(shape.h)));
    if (bytes > 24 * 1024)  // with what is static
      cudaFuncSetAttribute(hash, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    hash<<<chunk_grid(layout), 2 * Team::kThreads, bytes, stream>>>(
        layout, shape, centring, keys, queries, fours, R, sums, squares, query_bin, key_bin);
    check_launch("lsh's bins", text);
  });
  if (shape.bins <= kFewBins) {
    const auto bytes = static_cast<int>(sizeof(int) * (kRankWarps + 1) * (shape.bins + 1));
    if (bytes > 48 * 1024)
      cudaFuncSetAttribute(ranks_by_tiles_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    ranks_by_tiles_kernel<<<batch, kRankWarps * 32, bytes, stream>>>(layout, static_cast<int>(shape.bins),
                                                                     query_bin, key_bin, rank, count);
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
