// Tiles of kTile queries by kTile keys; a warp owns 16 rows of the tile that its block keeps. Three kernels:
// forward (block = query tile), dQ (block = query tile; also leaves delta_i = dO_i . O_i), dK and dV (block =
// key tile). Each output row is written by one warp, so there is nothing to add up and no atomics.
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/sparse_attention.h"
#include "lib/ops/cuda/tiles.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kTile = 64;
constexpr int kThreads = 128;
constexpr float kLog2E = 1.4426950408889634f;
constexpr uint32_t kForever = 0x7fffffffu;

// Starts copying rows [first, first + kTile) of a sequence that ends at row `end` into shared memory, zeros
// where there is nothing; D is the padded width, `width` the real one.
template <int D>
__device__ __forceinline__ void load_tile(bf16* tile, Rows<const bf16> from, int64_t first, int64_t end,
                                          int width) {
  constexpr int kPitch = D + 8, kVectors = D / 8;
#pragma unroll
  for (int i = 0; i < kTile * kVectors / kThreads; ++i) {
    const int v = threadIdx.x + i * kThreads, r = v / kVectors, c = v % kVectors * 8;
    const int64_t row = first + r;
    const bool real = row < end && c < width;
    copy_async(tile + r * kPitch + c, from.data + (real ? row * from.stride + c : 0), real);
  }
}

// The tiles that a block walks over lie in shared memory twice: one is read while the next arrives.
template <int DQK, int DV>
struct Stage {
  bf16 narrow[kTile * (DQK + 8)];  // K, or Q
  bf16 wide[kTile * (DV + 8)];     // V, or dO
};

// What a tile of keys needs for the membership tests.
struct KeyTile {
  uint32_t life[kTile], code[kTile];
};
__device__ __forceinline__ void load_keys(KeyTile& tile, const TileKeys& keys, int64_t first, int64_t end) {
  if (threadIdx.x < kTile) {
    const int64_t row = first + threadIdx.x;
    tile.life[threadIdx.x] = row < end ? keys.life[row] : 0u;
    tile.code[threadIdx.x] = row < end && keys.key_code ? keys.key_code[row] : 0u;
  }
}

// One query as the tests see it.
struct Query {
  int position;
  uint32_t code;  // of LSH; width 0 turns that test off
  uint32_t width;
  bool everything;  // empty and uniform: every position of the sequence, at score 0
};
__device__ __forceinline__ Query load_query(const TileKeys& keys, int64_t row, int64_t end, int position) {
  Query q{position, 0u, 0u, false};
  if (row >= end) {
    q.position = -1;  // i - j is negative for every key
    return q;
  }
  if (keys.key_code) {
    q.code = keys.query_code[row];
    q.width = keys.width;
  }
  q.everything = keys.uniform_empty && keys.empty[row];
  return q;
}
__device__ __forceinline__ bool may_attend(const Query& q, int j, uint32_t life, uint32_t code) {
  return static_cast<uint32_t>(q.position - j) < life || code - q.code < q.width;
}

// The tile of a block, largest first so that the longest work starts first.
struct Place {
  int64_t begin, end;  // rows of the sequence
  int tile;            // -1: none
};
__device__ __forceinline__ Place place_of_block(const Layout& layout) {
  Place p;
  p.begin = layout.cu_seqlens[blockIdx.y];
  p.end = layout.cu_seqlens[blockIdx.y + 1];
  const int tiles = static_cast<int>((p.end - p.begin + kTile - 1) / kTile);
  p.tile = static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x);
  if (p.tile >= tiles) p.tile = -1;
  return p;
}

// Zeros in the rows that no sequence uses: a share for each block of the grid.
__device__ void zero_unused_rows(const Layout& layout, bf16* out, int width) {
  const int64_t blocks = static_cast<int64_t>(gridDim.x) * gridDim.y;
  const int64_t block = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  const int64_t first = layout.cu_seqlens[layout.batch] * width, last = layout.rows * width;
  for (int64_t i = first + block * kThreads + threadIdx.x; i < last; i += blocks * kThreads) {
    out[i] = __float2bfloat16_rn(0.0f);
  }
}

// S (16 x kTile, as C fragments) = rows of A times the transpose of B's rows.
template <int D>
__device__ __forceinline__ void product(float (&S)[kTile / 8][4], const uint32_t (&A)[D / 16][4],
                                        const bf16* B, int lane) {
#pragma unroll
  for (int n = 0; n < kTile / 16; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) S[2 * n][e] = S[2 * n + 1][e] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t b[4];
      load_b(b, B + n * 16 * (D + 8) + k * 16, D + 8, lane);
      mma(S[2 * n], A[k], b[0], b[1]);
      mma(S[2 * n + 1], A[k], b[2], b[3]);
    }
  }
}

// out (16 x D) += P (16 x kTile, C fragments rounded to bf16) times B (kTile x D).
template <int D>
__device__ __forceinline__ void accumulate(float (&out)[D / 8][4], const float (&P)[kTile / 8][4],
                                           const bf16* B, int lane) {
#pragma unroll
  for (int k = 0; k < kTile / 16; ++k) {
    const uint32_t a[4] = {pack(P[2 * k][0], P[2 * k][1]), pack(P[2 * k][2], P[2 * k][3]),
                           pack(P[2 * k + 1][0], P[2 * k + 1][1]), pack(P[2 * k + 1][2], P[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < D / 16; ++n) {
      uint32_t b[4];
      load_b_trans(b, B + k * 16 * (D + 8) + n * 16, D + 8, lane);
      mma(out[2 * n], a, b[0], b[1]);
      mma(out[2 * n + 1], a, b[2], b[3]);
    }
  }
}

// C fragments to rows of a contiguous (rows, width) matrix, scaled by row.
template <int D>
__device__ __forceinline__ void store_rows(bf16* to, const float (&out)[D / 8][4], int64_t row, int64_t end,
                                           int width, int lane, float scale_low, float scale_high) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t r = row + half * 8;
    if (r >= end) continue;
    const float scale = half == 0 ? scale_low : scale_high;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      const int c = n * 8 + lane % 4 * 2;
      if (c < width) {
        *reinterpret_cast<uint32_t*>(to + r * width + c) =
            pack(out[n][2 * half] * scale, out[n][2 * half + 1] * scale);
      }
    }
  }
}

// Does any thread's key reach a query at position first or later? Without LSH, tiles that none does are
// skipped.
__device__ __forceinline__ bool tile_is_seen(const TileKeys& keys, int64_t first_key, int64_t end, int j0,
                                             int i0) {
  if (keys.key_code) return true;
  bool seen = false;
  if (threadIdx.x < kTile && first_key + threadIdx.x < end) {
    const int64_t last = static_cast<int64_t>(j0) + threadIdx.x + keys.life[first_key + threadIdx.x];
    seen = last > i0;
  }
  return __syncthreads_or(seen);
}

// The first key tile from `tile` on that a query at position i0 or later can see, or `tiles`.
__device__ __forceinline__ int next_key_tile(const TileKeys& keys, const Place& place, int tile, int tiles,
                                             int i0, bool everything) {
  while (tile < tiles && !everything &&
         !tile_is_seen(keys, place.begin + tile * kTile, place.end, tile * kTile, i0))
    ++tile;
  return tile;
}

template <int DQK, int DV>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Layout layout, int d_qk, int d_v, TileKeys keys, Rows<const bf16> Q, Rows<const bf16> K,
                   Rows<const bf16> V, bf16* __restrict__ O, float* __restrict__ lse) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto* stages = reinterpret_cast<Stage<DQK, DV>*>(shared_bytes);
  __shared__ KeyTile key_tiles[2];
  zero_unused_rows(layout, O, d_v);
  const Place place = place_of_block(layout);
  if (place.tile < 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n = static_cast<int>(place.end - place.begin);
  const int i0 = place.tile * kTile;
  const int64_t first = place.begin + i0, row = first + warp * 16 + lane / 4;
  const Query q[2] = {load_query(keys, row, place.end, i0 + warp * 16 + lane / 4),
                      load_query(keys, row + 8, place.end, i0 + warp * 16 + lane / 4 + 8)};

  load_tile<DQK>(stages[1].narrow, Q, first, place.end, d_qk);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  uint32_t q_part[DQK / 16][4];
#pragma unroll
  for (int k = 0; k < DQK / 16; ++k)
    load_a(q_part[k], stages[1].narrow + warp * 16 * (DQK + 8) + k * 16, DQK + 8, lane);
  const bool everything = __syncthreads_or(q[0].everything || q[1].everything);

  float out[DV / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
  const int tiles = everything ? (n + kTile - 1) / kTile : place.tile + 1;
  const auto fetch = [&](int tile, int stage) {
    load_tile<DQK>(stages[stage].narrow, K, place.begin + tile * kTile, place.end, d_qk);
    load_tile<DV>(stages[stage].wide, V, place.begin + tile * kTile, place.end, d_v);
    load_keys(key_tiles[stage], keys, place.begin + tile * kTile, place.end);
    commit_copies();
  };
  int tile = next_key_tile(keys, place, 0, tiles, i0, everything), stage = 0;
  if (tile < tiles) fetch(tile, 0);
  while (tile < tiles) {
    const int j0 = tile * kTile;
    tile = next_key_tile(keys, place, tile + 1, tiles, i0, everything);
    __syncthreads();  // the other stage has been read
    if (tile < tiles) fetch(tile, stage ^ 1);
    if (tile < tiles)
      wait_copies<1>();
    else
      wait_copies<0>();
    __syncthreads();
    const bf16 *k_tile = stages[stage].narrow, *v_tile = stages[stage].wide;
    const KeyTile& key_tile = key_tiles[stage];
    stage ^= 1;
    float S[kTile / 8][4];
    product<DQK>(S, q_part, k_tile, lane);
    float most[2] = {largest[0], largest[1]};
#pragma unroll
    for (int t = 0; t < kTile / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int c = t * 8 + lane % 4 * 2 + e % 2;
        const Query& query = q[e / 2];
        float s = may_attend(query, j0 + c, key_tile.life[c], key_tile.code[c]) ? S[t][e] : -INFINITY;
        if (query.everything) s = j0 + c < n ? 0.0f : -INFINITY;
        S[t][e] = s;
        most[e / 2] = fmaxf(most[e / 2], s);
      }
    }
    float scale[2], base[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      most[h] = fmaxf(most[h], __shfl_xor_sync(0xffffffffu, most[h], 1));
      most[h] = fmaxf(most[h], __shfl_xor_sync(0xffffffffu, most[h], 2));
      base[h] = most[h] == -INFINITY ? 0.0f : most[h] * kLog2E;
      scale[h] = exp2_fast(largest[h] * kLog2E - base[h]);
      largest[h] = most[h];
      sum[h] *= scale[h];
    }
#pragma unroll
    for (int t = 0; t < kTile / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        S[t][e] = exp2_fast(fmaf(S[t][e], kLog2E, -base[e / 2]));
        sum[e / 2] += S[t][e];
      }
    }
#pragma unroll
    for (int t = 0; t < DV / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) out[t][e] *= scale[e / 2];
    }
    accumulate<DV>(out, S, v_tile, lane);
  }
  float inverse[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
    if (q[h].everything) sum[h] += static_cast<float>(keys.padded_length - n);  // PAD: score 0, V = 0
    inverse[h] = sum[h] > 0.0f ? 1.0f / sum[h] : 0.0f;
    // Without a key every probability must come out as 0 in the backward pass.
    const float value = sum[h] > 0.0f ? largest[h] + logf(sum[h]) : INFINITY;
    if (lane % 4 == 0 && row + 8 * h < place.end) lse[row + 8 * h] = value;
  }
  store_rows<DV>(O, out, row, place.end, d_v, lane, inverse[0], inverse[1]);
}

// P in place of the scores S: exp(s - lse) where allowed, else 0.
__device__ __forceinline__ float probability(const Query& q, float s, int j, uint32_t life, uint32_t code,
                                             float lse, int n) {
  if (q.everything) return j < n ? exp2_fast(-lse * kLog2E) : 0.0f;
  return may_attend(q, j, life, code) ? exp2_fast((s - lse) * kLog2E) : 0.0f;
}

template <int DQK, int DV>
__global__ void __launch_bounds__(kThreads)
    dq_kernel(Layout layout, int d_qk, int d_v, TileKeys keys, Rows<const bf16> Q, Rows<const bf16> K,
              Rows<const bf16> V, const bf16* __restrict__ O, const float* __restrict__ lse,
              Rows<const bf16> dO, bf16* __restrict__ dQ, float* __restrict__ delta) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto* stages = reinterpret_cast<Stage<DQK, DV>*>(shared_bytes);
  __shared__ KeyTile key_tiles[2];
  zero_unused_rows(layout, dQ, d_qk);
  const Place place = place_of_block(layout);
  if (place.tile < 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n = static_cast<int>(place.end - place.begin);
  const int i0 = place.tile * kTile;
  const int64_t first = place.begin + i0, row = first + warp * 16 + lane / 4;
  const Query q[2] = {load_query(keys, row, place.end, i0 + warp * 16 + lane / 4),
                      load_query(keys, row + 8, place.end, i0 + warp * 16 + lane / 4 + 8)};

  load_tile<DQK>(stages[1].narrow, Q, first, place.end, d_qk);
  load_tile<DV>(stages[1].wide, dO, first, place.end, d_v);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  uint32_t q_part[DQK / 16][4], do_part[DV / 16][4];
#pragma unroll
  for (int k = 0; k < DQK / 16; ++k)
    load_a(q_part[k], stages[1].narrow + warp * 16 * (DQK + 8) + k * 16, DQK + 8, lane);
#pragma unroll
  for (int k = 0; k < DV / 16; ++k)
    load_a(do_part[k], stages[1].wide + warp * 16 * (DV + 8) + k * 16, DV + 8, lane);
  // delta_i, from dO in shared memory and O in global memory: four lanes a row.
  float row_lse[2], row_delta[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int64_t r = row + 8 * h;
    float dot = 0.0f;
    if (r < place.end) {
      const bf16* own = stages[1].wide + (r - first) * (DV + 8);
      for (int c = lane % 4 * 2; c < d_v; c += 8) {
        const __nv_bfloat162 o = *reinterpret_cast<const __nv_bfloat162*>(O + r * d_v + c);
        dot += __low2float(o) * to_float(own[c]) + __high2float(o) * to_float(own[c + 1]);
      }
    }
    dot += __shfl_xor_sync(0xffffffffu, dot, 1);
    dot += __shfl_xor_sync(0xffffffffu, dot, 2);
    row_delta[h] = dot;
    row_lse[h] = r < place.end ? lse[r] : INFINITY;
    if (lane % 4 == 0 && r < place.end) delta[r] = dot;
  }
  const bool everything = __syncthreads_or(q[0].everything || q[1].everything);

  float out[DQK / 8][4] = {};
  const int tiles = everything ? (n + kTile - 1) / kTile : place.tile + 1;
  const auto fetch = [&](int tile, int stage) {
    load_tile<DQK>(stages[stage].narrow, K, place.begin + tile * kTile, place.end, d_qk);
    load_tile<DV>(stages[stage].wide, V, place.begin + tile * kTile, place.end, d_v);
    load_keys(key_tiles[stage], keys, place.begin + tile * kTile, place.end);
    commit_copies();
  };
  int tile = next_key_tile(keys, place, 0, tiles, i0, everything), stage = 0;
  if (tile < tiles) fetch(tile, 0);
  while (tile < tiles) {
    const int j0 = tile * kTile;
    tile = next_key_tile(keys, place, tile + 1, tiles, i0, everything);
    __syncthreads();  // the other stage has been read
    if (tile < tiles) fetch(tile, stage ^ 1);
    if (tile < tiles)
      wait_copies<1>();
    else
      wait_copies<0>();
    __syncthreads();
    const bf16 *k_tile = stages[stage].narrow, *v_tile = stages[stage].wide;
    const KeyTile& key_tile = key_tiles[stage];
    stage ^= 1;
    float S[kTile / 8][4], dP[kTile / 8][4];
    product<DQK>(S, q_part, k_tile, lane);
    product<DV>(dP, do_part, v_tile, lane);
#pragma unroll
    for (int t = 0; t < kTile / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int c = t * 8 + lane % 4 * 2 + e % 2, h = e / 2;
        const float p = probability(q[h], S[t][e], j0 + c, key_tile.life[c], key_tile.code[c], row_lse[h], n);
        S[t][e] = p * (dP[t][e] - row_delta[h]);
      }
    }
    accumulate<DQK>(out, S, k_tile, lane);
  }
  store_rows<DQK>(dQ, out, row, place.end, d_qk, lane, 1.0f, 1.0f);
}

template <int DQK, int DV>
__global__ void __launch_bounds__(kThreads)
    dkv_kernel(Layout layout, int d_qk, int d_v, TileKeys keys, Rows<const bf16> Q, Rows<const bf16> K,
               Rows<const bf16> V, const float* __restrict__ lse, Rows<const bf16> dO,
               const float* __restrict__ delta, bf16* __restrict__ dK, bf16* __restrict__ dV) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto* stages = reinterpret_cast<Stage<DQK, DV>*>(shared_bytes);
  __shared__ KeyTile key_tile;
  __shared__ Query query_tiles[2][kTile];
  __shared__ float lse_tiles[2][kTile], delta_tiles[2][kTile];
  zero_unused_rows(layout, dK, d_qk);
  zero_unused_rows(layout, dV, d_v);
  const Place place = place_of_block(layout);
  // The first key tile meets the most queries: count from the other end.
  const int n = static_cast<int>(place.end - place.begin), tiles = (n + kTile - 1) / kTile;
  const int own = static_cast<int>(blockIdx.x);
  if (own >= tiles) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int j0 = own * kTile;
  const int64_t first = place.begin + j0, row = first + warp * 16 + lane / 4;

  load_tile<DQK>(stages[1].narrow, K, first, place.end, d_qk);
  load_tile<DV>(stages[1].wide, V, first, place.end, d_v);
  load_keys(key_tile, keys, first, place.end);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  uint32_t k_part[DQK / 16][4], v_part[DV / 16][4];
#pragma unroll
  for (int k = 0; k < DQK / 16; ++k)
    load_a(k_part[k], stages[1].narrow + warp * 16 * (DQK + 8) + k * 16, DQK + 8, lane);
#pragma unroll
  for (int k = 0; k < DV / 16; ++k)
    load_a(v_part[k], stages[1].wide + warp * 16 * (DV + 8) + k * 16, DV + 8, lane);
  const int own_key = warp * 16 + lane / 4;
  const uint32_t life[2] = {key_tile.life[own_key], key_tile.life[own_key + 8]};
  const uint32_t code[2] = {key_tile.code[own_key], key_tile.code[own_key + 8]};

  float dk[DQK / 8][4] = {}, dv[DV / 8][4] = {};
  // Queries before the keys matter only where they attend to everything.
  const auto next_query_tile = [&](int tile) {
    for (; tile < tiles; ++tile) {
      bool everything = false;
      if (keys.uniform_empty && threadIdx.x < kTile) {
        const int64_t r = place.begin + tile * kTile + threadIdx.x;
        everything = r < place.end && keys.empty[r];
      }
      if (keys.uniform_empty && __syncthreads_or(everything)) return tile;
      if (tile >= own && tile_is_seen(keys, first, place.end, j0, tile * kTile)) return tile;
    }
    return tile;
  };
  const auto fetch = [&](int tile, int stage) {
    const int i0 = tile * kTile;
    load_tile<DQK>(stages[stage].narrow, Q, place.begin + i0, place.end, d_qk);
    load_tile<DV>(stages[stage].wide, dO, place.begin + i0, place.end, d_v);
    commit_copies();
    if (threadIdx.x < kTile) {
      const int64_t r = place.begin + i0 + threadIdx.x;
      query_tiles[stage][threadIdx.x] = load_query(keys, r, place.end, i0 + threadIdx.x);
      lse_tiles[stage][threadIdx.x] = r < place.end ? lse[r] : INFINITY;
      delta_tiles[stage][threadIdx.x] = r < place.end ? delta[r] : 0.0f;
    }
  };
  __syncthreads();  // the own rows have been read
  int tile = next_query_tile(keys.uniform_empty ? 0 : own), stage = 0;
  if (tile < tiles) fetch(tile, 0);
  while (tile < tiles) {
    tile = next_query_tile(tile + 1);
    __syncthreads();  // the other stage has been read
    if (tile < tiles) fetch(tile, stage ^ 1);
    if (tile < tiles)
      wait_copies<1>();
    else
      wait_copies<0>();
    __syncthreads();
    const bf16 *q_tile = stages[stage].narrow, *do_tile = stages[stage].wide;
    const Query* queries = query_tiles[stage];
    const float *query_lse = lse_tiles[stage], *query_delta = delta_tiles[stage];
    stage ^= 1;
    float S[kTile / 8][4], dP[kTile / 8][4];  // transposed: keys by queries
    product<DQK>(S, k_part, q_tile, lane);
#pragma unroll
    for (int t = 0; t < kTile / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int c = t * 8 + lane % 4 * 2 + e % 2, h = e / 2;
        S[t][e] = probability(queries[c], S[t][e], j0 + own_key + 8 * h, life[h], code[h], query_lse[c], n);
      }
    }
    accumulate<DV>(dv, S, do_tile, lane);
    product<DV>(dP, v_part, do_tile, lane);
#pragma unroll
    for (int t = 0; t < kTile / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int c = t * 8 + lane % 4 * 2 + e % 2;
        S[t][e] *= dP[t][e] - query_delta[c];
      }
    }
    accumulate<DQK>(dk, S, q_tile, lane);
  }
  store_rows<DQK>(dK, dk, row, place.end, d_qk, lane, 1.0f, 1.0f);
  store_rows<DV>(dV, dv, row, place.end, d_v, lane, 1.0f, 1.0f);
}

__global__ void tile_keys_kernel(Layout layout, Memberships m, int shift, uint32_t* __restrict__ life,
                                 uint32_t* __restrict__ key_code, uint32_t* __restrict__ query_code,
                                 uint8_t* __restrict__ empty) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t >= layout.cu_seqlens[layout.batch]) return;
  const int64_t j = layout.position[t];
  int64_t longest = 0;
  if (m.window > 0) longest = m.window;
  if (m.evicted) longest = max(longest, m.evicted[t] - j);
  if (m.full || j < m.sink || (m.dilation > 0 && j % m.dilation == m.dilation - 1)) longest = kForever;
  life[t] = static_cast<uint32_t>(min(longest, static_cast<int64_t>(kForever)));
  // A window, a sink, the top-k and full attention always have a key for every query.
  bool none = !m.full && m.window <= 0 && m.sink <= 0 && !m.evicted;
  if (m.dilation > 0) none = none && j < m.dilation - 1;
  if (m.query_bin) {
    none = none && m.count[t] == 0;
    key_code[t] = (static_cast<uint32_t>(m.key_bin[t] + 1) << shift) + static_cast<uint32_t>(m.rank[t]);
    query_code[t] = (static_cast<uint32_t>(m.query_bin[t] + 1) << shift) +
                    static_cast<uint32_t>(m.count[t] - m.lsh_width);
  }
  empty[t] = none;
}

std::string shape_text(const Layout& layout, const AttentionShape& shape) {
  return "sequences " + std::to_string(layout.batch) + " of at most " + std::to_string(layout.max_seqlen) +
         ", d_qk " + std::to_string(shape.d_qk) + ", d_v " + std::to_string(shape.d_v);
}

// f(DQK, DV) with the padded widths as compile-time constants.
template <int DQK, class F>
void with_d_v(int64_t d_v, const F& f) {
  using A = std::integral_constant<int, DQK>;
  if (d_v <= 64)
    f(A(), std::integral_constant<int, 64>());
  else if (d_v <= 128)
    f(A(), std::integral_constant<int, 128>());
  else
    f(A(), std::integral_constant<int, 256>());
}
template <class F>
void with_widths(const AttentionShape& shape, const F& f) {
  if (shape.d_qk <= 16)
    with_d_v<16>(shape.d_v, f);
  else if (shape.d_qk <= 32)
    with_d_v<32>(shape.d_v, f);
  else
    with_d_v<64>(shape.d_v, f);
}

// Shared memory of a kernel, allowed beyond the default where it needs more.
template <int DQK, int DV, class Kernel>
size_t stage_bytes(Kernel kernel) {
  constexpr size_t kBytes = 2 * sizeof(Stage<DQK, DV>);
  if (kBytes > 40 * 1024)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes));
  return kBytes;
}

dim3 grid_of(const Layout& layout) {
  return {static_cast<unsigned>(ceil_div(layout.max_seqlen, kTile)), static_cast<unsigned>(layout.batch)};
}

}  // namespace

int lsh_code_shift(int64_t bins, int64_t width, int64_t max_seqlen) {
  int shift = 1;
  while ((int64_t{1} << shift) <= max_seqlen + width) ++shift;
  return (bins + 2) << shift <= int64_t{1} << 32 ? shift : -1;
}

void tile_keys(const Layout& layout, const Memberships& memberships, uint32_t* life, uint32_t* key_code,
               uint32_t* query_code, uint8_t* empty, cudaStream_t stream) {
  constexpr int kBlock = 256;
  const int shift = memberships.query_bin
                        ? lsh_code_shift(memberships.lsh_bins, memberships.lsh_width, layout.max_seqlen)
                        : 0;
  tile_keys_kernel<<<static_cast<unsigned>(ceil_div(layout.rows, kBlock)), kBlock, 0, stream>>>(
      layout, memberships, shift, life, key_code, query_code, empty);
  check_launch("tile_keys", "rows " + std::to_string(layout.rows));
}

void attention_forward(const Layout& layout, const AttentionShape& shape, const TileKeys& keys,
                       Rows<const bf16> Q, Rows<const bf16> K, Rows<const bf16> V, bf16* O, float* lse,
                       cudaStream_t stream) {
  const int d_qk = static_cast<int>(shape.d_qk), d_v = static_cast<int>(shape.d_v);
  with_widths(shape, [&](auto DQK, auto DV) {
    constexpr int kQk = decltype(DQK)::value, kV = decltype(DV)::value;
    const auto kernel = forward_kernel<kQk, kV>;
    kernel<<<grid_of(layout), kThreads, stage_bytes<kQk, kV>(kernel), stream>>>(layout, d_qk, d_v, keys, Q, K,
                                                                                V, O, lse);
  });
  check_launch("attention_forward", shape_text(layout, shape));
}

void attention_backward(const Layout& layout, const AttentionShape& shape, const TileKeys& keys,
                        Rows<const bf16> Q, Rows<const bf16> K, Rows<const bf16> V, const bf16* O,
                        const float* lse, Rows<const bf16> dO, bf16* dQ, bf16* dK, bf16* dV, float* delta,
                        cudaStream_t stream) {
  const int d_qk = static_cast<int>(shape.d_qk), d_v = static_cast<int>(shape.d_v);
  with_widths(shape, [&](auto DQK, auto DV) {
    constexpr int kQk = decltype(DQK)::value, kV = decltype(DV)::value;
    const auto dq = dq_kernel<kQk, kV>;
    dq<<<grid_of(layout), kThreads, stage_bytes<kQk, kV>(dq), stream>>>(layout, d_qk, d_v, keys, Q, K, V, O,
                                                                        lse, dO, dQ, delta);
    check_launch("attention_backward dQ", shape_text(layout, shape));
    const auto dkv = dkv_kernel<kQk, kV>;
    dkv<<<grid_of(layout), kThreads, stage_bytes<kQk, kV>(dkv), stream>>>(layout, d_qk, d_v, keys, Q, K, V,
                                                                          lse, dO, delta, dK, dV);
  });
  check_launch("attention_backward dK dV", shape_text(layout, shape));
}

}  // namespace hax::ops::cuda
