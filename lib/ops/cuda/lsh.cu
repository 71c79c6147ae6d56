// Blocks of chunk_grid centre and hash the positions of a chunk: running sums begin with the sums of the
// chunks before (chunk_sums.cuh), means and norms of whole sequences come from the sums of all chunks, and
// two threads project a key or query. Ranks are counted by blocks of a span of a sequence, and where there
// are too many bins by a warp a sequence, 32 positions at a time.
#include "lib/ops/cuda/chunk_sums.cuh"
#include "lib/ops/cuda/lsh.h"

namespace hax::ops::cuda {
namespace {

// Two threads project a key, groups of kTogether projections in turn.
constexpr int kTogether = 4, kHalves = 2;

// Columns of the matrix in shared memory: h, and zeros up to a multiple of what both threads make together.
__host__ __device__ constexpr int padded_bits(int h) {
  return (h + kHalves * kTogether - 1) / (kHalves * kTogether) * (kHalves * kTogether);
}
// Features in shared memory, with zeros up to a multiple of four.
__host__ __device__ constexpr int padded_features(int d) { return (d + 3) / 4 * 4; }

// The bin of x (d) by R (d, padded_bits(h)), d a multiple of four, both 16-byte aligned; projections are
// rounded to T. Lanes 2 i and 2 i + 1 call it with the same x, as halves 0 and 1, and both get the bin.
template <class T>
__device__ __forceinline__ int bin_of(const float* x, const float* R, int d, int h, int half, bool sign) {
  const int columns = padded_bits(h);
  int bin = 0;
  float best = -INFINITY;
  for (int b0 = half * kTogether; b0 < h; b0 += kHalves * kTogether) {
    float projection[kTogether] = {};
#pragma unroll 4
    for (int k = 0; k < d; k += 4) {
      const float4 four = *reinterpret_cast<const float4*>(x + k);
      const float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float4 r = *reinterpret_cast<const float4*>(R + (k + e) * columns + b0);
        projection[0] = fmaf(values[e], r.x, projection[0]);
        projection[1] = fmaf(values[e], r.y, projection[1]);
        projection[2] = fmaf(values[e], r.z, projection[2]);
        projection[3] = fmaf(values[e], r.w, projection[3]);
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
  const int other = __shfl_xor_sync(0xffffffffu, bin, 1);
  const float others_best = __shfl_xor_sync(0xffffffffu, best, 1);
  if (sign) return bin | other;
  return others_best > best || (others_best == best && other < bin) ? other : bin;
}

__device__ __forceinline__ int chunks_in(int length) { return (length + kChunk - 1) / kChunk; }

// The means of a team's features over a padded sequence of which `chunk` is a part, as T.
template <class T, class Team>
__device__ __forceinline__ void padded_means(const Team& team, float (&mean)[Team::F],
                                             const float* __restrict__ sums, int d, bool fours,
                                             const Chunk& chunk, float padded_length, float* shared) {
#pragma unroll
  for (int i = 0; i < Team::F; ++i) mean[i] = 0.0f;
  team.add_chunks(mean, sums_of_block(sums, gridDim.x, 2 * d), 2 * d, d, fours, chunks_in(chunk.length));
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
  const int wide = padded_features(d), pitch = 2 * wide + 4;
  float *R = dynamic, *centred = R + wide * columns;  // (wide, columns), (kChunk, pitch)
  const Chunk chunk = chunk_of_block(layout);
  if (chunk.n <= 0) return;
  const int side = static_cast<int>(threadIdx.x) / Team::kThreads;
  const Team team(static_cast<int>(threadIdx.x) % Team::kThreads);
  float x[Team::kRows][Team::F];
  team.load(x, side_of(side, K, Q), chunk);
#pragma unroll 2
  for (int i = threadIdx.x; i < wide * columns; i += 2 * Team::kThreads)
    R[i] = i < d * columns && i % columns < h ? rounded<W>(R_in[i / columns * h + i % columns]) : 0.0f;
  if (centring == HashCentring::running_mean) {
    float entering[Team::F] = {}, sum[Team::kRows][Team::F];
#pragma unroll
    for (int r = 0; r < Team::kRows; ++r) {
#pragma unroll
      for (int i = 0; i < Team::F; ++i) sum[r][i] = x[r][i];
    }
    team.add_chunks(entering, sums_of_block(sums, gridDim.x, 2 * d) + side * d, 2 * d, d, fours,
                    static_cast<int>(blockIdx.x));
    team.running(sum, entering, partial[side]);
#pragma unroll
    for (int r = 0; r < Team::kRows; ++r) {
      const float share = 1.0f / static_cast<float>(chunk.position + team.row(r) + 1);
#pragma unroll
      for (int i = 0; i < Team::F; ++i) x[r][i] = fmaf(-share, sum[r][i], x[r][i]);
    }
  } else if (centring == HashCentring::whole_sequence) {
    const auto length = static_cast<float>(shape.padded_length);
    float mean[Team::F], square[Team::F] = {};
    padded_means<W>(team, mean, sums + side * d, d, fours, chunk, length, partial[side]);
    team.add_chunks(square, sums_of_block(squares, gridDim.x, 2 * d) + side * d, 2 * d, d, fours,
                    chunks_in(chunk.length));
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
  for (int r = 0; r < Team::kRows; ++r)
    team.store(centred + team.row(r) * pitch + side * wide, x[r], wide, true);
  __syncthreads();
  if (threadIdx.x >= 2 * kHalves * kChunk) return;
  const int key = static_cast<int>(threadIdx.x) / kHalves, half = static_cast<int>(threadIdx.x) % kHalves;
  const int p = key % kChunk, of = key / kChunk;  // the keys, then the queries
  const int bin = bin_of<W>(centred + p * pitch + of * wide, R, wide, h, half, shape.sign);
  if (p < chunk.n && half == 0) (of == 0 ? key_bin : query_bin)[chunk.first + p] = bin;
}

constexpr int kRankThreads = 256, kRankWarps = kRankThreads / 32;  // tiles of 32 positions at a time
constexpr int64_t kMostSpans = 32;                                 // of a sequence
constexpr int64_t kFewBins = 1024;                                 // with counters for every tile

// A block a span of a sequence, a multiple of kRankThreads. In a tile the keys of a bin are where the ballots
// of all bits agree with it; keys of earlier tiles, and of the spans before, are counted by bin.
__global__ void __launch_bounds__(kRankThreads)
    ranks_by_tiles_kernel(Layout layout, int span, int bins, const int64_t* __restrict__ query_bin,
                          const int64_t* __restrict__ key_bin, int64_t* __restrict__ rank,
                          int64_t* __restrict__ count) {
  extern __shared__ int counters[];  // (kRankWarps + 1, bins): keys before a tile; in the last row of all
  const int t = static_cast<int>(threadIdx.x), lane = t % 32, warp = t / 32, bits = 32 - __clz(bins - 1);
  int *own = counters + warp * bins, *all = counters + kRankWarps * bins;
  const int64_t begin = layout.cu_seqlens[blockIdx.y];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.y + 1] - begin);
  const int first = static_cast<int>(blockIdx.x) * span;
  if (first >= n) return;
  const int last = min(n, first + span);
  const auto load = [&](const int64_t* bin, int p) {
    return p < last ? static_cast<int>(bin[begin + p]) : 0;
  };
  int next_key = load(key_bin, first + t), next_query = load(query_bin, first + t);
  for (int bin = t; bin < bins; bin += kRankThreads) all[bin] = 0;
  __syncthreads();
#pragma unroll 4
  for (int p = t; p < first; p += kRankThreads) atomicAdd(&all[load(key_bin, p)], 1);
  for (int p = first + t; p - t < last; p += kRankThreads) {
    const bool real = p < last;
    const int key = next_key, query = next_query;
    next_key = load(key_bin, p + kRankThreads);
    next_query = load(query_bin, p + kRankThreads);
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
    for (int bin = t; bin < bins; bin += kRankThreads) {
      int here[kRankWarps], through = all[bin];
#pragma unroll
      for (int w = 0; w < kRankWarps; ++w) here[w] = counters[w * bins + bin];
#pragma unroll
      for (int w = 0; w < kRankWarps; ++w) {
        counters[w * bins + bin] = through;
        through += here[w];
      }
      all[bin] = through;
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
         const float* R, const float* sums, int64_t* query_bin, int64_t* key_bin, int64_t* rank,
         int64_t* count, float* scratch, cudaStream_t stream) {
  const auto batch = static_cast<unsigned>(layout.batch);
  const std::string text = "sequences " + std::to_string(layout.batch) + ", d " + std::to_string(shape.d) +
                           ", h " + std::to_string(shape.h);
  float *made = scratch, *squares = made + layout.batch * chunks_of(layout) * 2 * shape.d;
  const Features<T> keys = features_of(K, shape.d), queries = features_of(Q, shape.d);
  const bool fours = features_of(Rows<const float>{scratch, shape.d}, shape.d).fours;
  const bool whole = centring == HashCentring::whole_sequence;
  with_chunk_team<kLshWidest>(shape.d, [&](auto tag) {
    using Team = typename decltype(tag)::Type;
    if (centring != HashCentring::none && !sums) {
      chunk_sums_kernel<T, Team>
          <<<chunk_grid(layout, 2), Team::kThreads, 0, stream>>>(layout, keys, queries, made);
      check_launch("lsh's sums", text);
      sums = made;
    }
    if (whole) {
      chunk_squares_kernel<T, Team><<<chunk_grid(layout, 2), Team::kThreads, 0, stream>>>(
          layout, static_cast<float>(shape.padded_length), keys, queries, fours, sums, squares);
      check_launch("lsh's squares", text);
    }
    const auto hash = whole ? hash_kernel<T, T, Team> : hash_kernel<T, float, Team>;
    const size_t wide = padded_features(static_cast<int>(shape.d));
    const size_t bytes =
        sizeof(float) * (kChunk * (2 * wide + 4) + wide * padded_bits(static_cast<int>(shape.h)));
    if (bytes > 24 * 1024)  // with what is static
      cudaFuncSetAttribute(hash, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    hash<<<chunk_grid(layout), 2 * Team::kThreads, bytes, stream>>>(
        layout, shape, centring, keys, queries, fours, R, sums, squares, query_bin, key_bin);
    check_launch("lsh's bins", text);
  });
  if (shape.bins <= kFewBins) {
    const int64_t span = ceil_div(ceil_div(layout.max_seqlen, kMostSpans), kRankThreads) * kRankThreads;
    const dim3 spans(static_cast<unsigned>(ceil_div(layout.max_seqlen, span)), batch);
    ranks_by_tiles_kernel<<<spans, kRankThreads, sizeof(int) * (kRankWarps + 1) * shape.bins, stream>>>(
        layout, static_cast<int>(span), static_cast<int>(shape.bins), query_bin, key_bin, rank, count);
    check_launch("lsh's ranks", text);
    return;
  }
  ranks_kernel<<<batch, 32, shape.bins * sizeof(int), stream>>>(layout, static_cast<int>(shape.bins),
                                                                query_bin, key_bin, rank, count);
  check_launch("lsh's ranks", text);
}

template void lsh<float>(const Layout&, const LshShape&, HashCentring, Rows<const float>, Rows<const float>,
                         const float*, const float*, int64_t*, int64_t*, int64_t*, int64_t*, float*,
                         cudaStream_t);
template void lsh<__nv_bfloat16>(const Layout&, const LshShape&, HashCentring, Rows<const __nv_bfloat16>,
                                 Rows<const __nv_bfloat16>, const float*, const float*, int64_t*, int64_t*,
                                 int64_t*, int64_t*, float*, cudaStream_t);

}  // namespace hax::ops::cuda
