// Forward: a block owns a tile of queries and keeps a running softmax over the keys that it walks over.
#include "lib/ops/cuda/attention_queries.cuh"

namespace hax::ops::cuda {
namespace {

template <class T, int DQK, int DV>
__global__ void __launch_bounds__(kQueryThreads, kQueryBlocks<T, DV>)
    forward_kernel(Layout layout, int most_tiles, int d_qk, int d_v, TileKeys keys, Rows<const T> Q,
                   Rows<const T> K, Rows<const T> V, T* __restrict__ O, float* __restrict__ lse) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto* stages = reinterpret_cast<Stage<T, DQK, DV>*>(shared_bytes);
  __shared__ KeyWalk walk;
  zero_unused_rows(layout, O, d_v);
  const Place place = place_of_block(layout, most_tiles, /*from_first=*/false);
  if (place.tile < 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, i0 = place.tile * kTile;
  const int own = i0 + warp * 16 + lane / 4;
  const Query q[2] = {load_query(keys, place.begin + own, place.end, own),
                      load_query(keys, place.begin + own + 8, place.end, own + 8)};
  load_rows<DQK, kQueryThreads>(stages[kQueryStages - 1].narrow, Q, d_qk,
                                [&](int r) { return i0 + r < place.n ? place.begin + i0 + r : int64_t{-1}; });
  commit_copies();
  const bool everything = __syncthreads_or(q[0].everything || q[1].everything);
  OwnRows<T, DQK> q_rows;
  const auto ready = [&] { q_rows.load(stages[kQueryStages - 1].narrow + warp * 16 * (DQK + 8), lane); };

  float out[DV / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
  const auto visit = [&](const T* k_tile, const T* v_tile, const KeyColumns& columns) {
    float S[kTile / 8][4];
    product(S, q_rows, k_tile, lane);
    float most[2] = {largest[0], largest[1]};
#pragma unroll
    for (int t = 0; t < kTile / 8; ++t) {
      const int c = t * 8 + lane % 4 * 2;
      const int2 position = *reinterpret_cast<const int2*>(&columns.position[c]);
      const uint2 life = *reinterpret_cast<const uint2*>(&columns.life[c]);
      const uint2 code = *reinterpret_cast<const uint2*>(&columns.code[c]);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const Query& query = q[e / 2];
        const int j = e % 2 ? position.y : position.x;
        const bool seen = may_attend(query.position, query.code, j, e % 2 ? life.y : life.x,
                                     e % 2 ? code.y : code.x, keys.width);
        float s = seen ? S[t][e] : -INFINITY;
        if (everything && query.everything) s = j >= 0 ? 0.0f : -INFINITY;
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
  };
  for_keys(keys, place, everything, stages, walk, K, V, d_qk, d_v, visit, ready);

  float inverse[2];
  int64_t rows[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    rows[h] = own + 8 * h < place.n ? place.begin + own + 8 * h : -1;
    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
    if (q[h].everything) sum[h] += static_cast<float>(keys.padded_length - place.n);  // PAD: score 0, V = 0
    inverse[h] = sum[h] > 0.0f ? 1.0f / sum[h] : 0.0f;
    // Without a key every probability must come out as 0 in the backward pass.
    const float value = sum[h] > 0.0f ? largest[h] * kLog2E + log2f(sum[h]) : INFINITY;
    if (lane % 4 == 0 && rows[h] >= 0) lse[rows[h]] = value;
  }
  store_rows<DV>(O, out, rows, d_v, lane, inverse[0], inverse[1]);
}

}  // namespace

template <class T>
void attention_forward(const Layout& layout, const AttentionShape& shape, const TileKeys& keys,
                       Rows<const T> Q, Rows<const T> K, Rows<const T> V, T* O, float* lse,
                       cudaStream_t stream) {
  const int d_qk = static_cast<int>(shape.d_qk), d_v = static_cast<int>(shape.d_v);
  with_widths<T>(shape, [&](auto DQK, auto DV) {
    constexpr int kQk = decltype(DQK)::value, kV = decltype(DV)::value;
    const auto kernel = forward_kernel<T, kQk, kV>;
    const size_t bytes = allow_shared(kernel, kQueryStages * sizeof(Stage<T, kQk, kV>));
    kernel<<<blocks_of(layout), kQueryThreads, bytes, stream>>>(layout, most_tiles(layout), d_qk, d_v, keys,
                                                                Q, K, V, O, lse);
  });
  check_launch("attention_forward", shape_text(layout, shape));
}

#define HAX_INSTANTIATE(T)                                                                                 \
  template void attention_forward<T>(const Layout&, const AttentionShape&, const TileKeys&, Rows<const T>, \
                                     Rows<const T>, Rows<const T>, T*, float*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(bf16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
