// Backward: delta_i = dO_i . O_i, then dQ (a block owns a tile of queries), and dK and dV (a block owns a
// tile of keys), which may run side by side. Each output row is written by one warp: no atomics.
//
// Keys that live come first in the order of tiles (TileKeys::order): nearly every later query looks at their
// tiles, while the tiles of the others meet few queries, by LSH alone. The warps of the second kernel work in
// two groups, one on the first half of a tile of queries and one on the second; their sums are added at the
// end.
#include "lib/ops/cuda/attention_queries.cuh"
#include "lib/ops/cuda/vectors.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kDeltaThreads = 256, kDeltaLanes = 16;  // of a row

template <class T>
__global__ void __launch_bounds__(kDeltaThreads) delta_kernel(Layout layout, int d_v, const T* __restrict__ O,
                                                              Rows<const T> dO, float* __restrict__ delta) {
  constexpr int kVector = 16 / sizeof(T);
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kDeltaThreads + threadIdx.x) / kDeltaLanes;
  const int lane = threadIdx.x % kDeltaLanes;
  float dot = 0.0f;
  if (row < layout.cu_seqlens[layout.batch]) {
    for (int c = lane * kVector; c < d_v; c += kDeltaLanes * kVector) {
      const auto o = load_packed<kVector>(O + row * d_v + c);
      const auto up = load_packed<kVector>(dO.data + row * dO.stride + c);
#pragma unroll
      for (int i = 0; i < kVector; ++i) dot += o.get(i) * up.get(i);
    }
  }
#pragma unroll
  for (int step = kDeltaLanes / 2; step > 0; step /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, step);
  if (lane == 0 && row < layout.rows) delta[row] = dot;
}

constexpr int kQueryPiece = 32;  // keys of a tile that a warp works on together

template <class T, int DQK, int DV>
__global__ void __launch_bounds__(kQueryThreads, kQueryBlocks<T, DV>)
    dq_kernel(Layout layout, int most_tiles, int d_qk, int d_v, TileKeys keys, Rows<const T> Q,
              Rows<const T> K, Rows<const T> V, const float* __restrict__ lse, Rows<const T> dO,
              const float* __restrict__ delta, T* __restrict__ dQ) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto* stages = reinterpret_cast<Stage<T, DQK, DV>*>(shared_bytes);
  __shared__ KeyWalk walk;
  zero_unused_rows(layout, dQ, d_qk);
  const Place place = place_of_block(layout, most_tiles, /*from_first=*/false);
  if (place.tile < 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, i0 = place.tile * kTile;
  const int own = i0 + warp * 16 + lane / 4;
  const Query q[2] = {load_query(keys, place.begin + own, place.end, own),
                      load_query(keys, place.begin + own + 8, place.end, own + 8)};
  const auto query_row = [&](int r) { return i0 + r < place.n ? place.begin + i0 + r : int64_t{-1}; };
  load_rows<DQK, kQueryThreads>(stages[kQueryStages - 1].narrow, Q, d_qk, query_row);
  load_rows<DV, kQueryThreads>(stages[kQueryStages - 1].wide, dO, d_v, query_row);
  commit_copies();
  const bool everything = __syncthreads_or(q[0].everything || q[1].everything);
  const Stage<T, DQK, DV>& own_rows = stages[kQueryStages - 1];
  OwnRows<T, DQK> q_rows;
  OwnRows<T, DV> do_rows;
  float row_lse[2], row_delta[2];
  int64_t rows[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    rows[h] = own + 8 * h < place.n ? place.begin + own + 8 * h : -1;
    row_lse[h] = rows[h] >= 0 ? lse[rows[h]] : INFINITY;
    row_delta[h] = rows[h] >= 0 ? delta[rows[h]] : 0.0f;
  }
  const auto ready = [&] {
    q_rows.load(own_rows.narrow + warp * 16 * (DQK + 8), lane);
    do_rows.load(own_rows.wide + warp * 16 * (DV + 8), lane);
  };

  float out[DQK / 8][4] = {};
  const auto visit = [&](const T* k_tile, const T* v_tile, const KeyColumns& columns) {
#pragma unroll 1
    for (int first = 0; first < kTile; first += kQueryPiece) {
      const T *k_rows = k_tile + first * (DQK + 8), *v_rows = v_tile + first * (DV + 8);
      float S[kQueryPiece / 8][4], dP[kQueryPiece / 8][4];
      product(S, q_rows, k_rows, lane);
      product(dP, do_rows, v_rows, lane);
#pragma unroll
      for (int t = 0; t < kQueryPiece / 8; ++t) {
        const int c = first + t * 8 + lane % 4 * 2;
        const int2 position = *reinterpret_cast<const int2*>(&columns.position[c]);
        const uint2 life = *reinterpret_cast<const uint2*>(&columns.life[c]);
        const uint2 code = *reinterpret_cast<const uint2*>(&columns.code[c]);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int h = e / 2, j = e % 2 ? position.y : position.x;
          bool seen = may_attend(q[h].position, q[h].code, j, e % 2 ? life.y : life.x,
                                 e % 2 ? code.y : code.x, keys.width);
          float s = S[t][e];
          if (everything && q[h].everything) {
            seen = j >= 0;
            s = 0.0f;
          }
          const float p = seen ? exp2_fast(fmaf(s, kLog2E, -row_lse[h])) : 0.0f;
          S[t][e] = p * (dP[t][e] - row_delta[h]);
        }
      }
      accumulate<DQK>(out, S, k_rows, lane);
    }
  };
  for_keys(keys, place, everything, stages, walk, K, V, d_qk, d_v, visit, ready);
  store_rows<DQK>(dQ, out, rows, d_qk, lane, 1.0f, 1.0f);
}

constexpr int kHalf = kTile / 2, kPiece = 16;  // queries of a group's part, and of those that a warp works on
                                               // together
constexpr int kKeyThreads = 256, kKeyWarps = kKeyThreads / 32;

// The queries of a tile as the keys see them.
struct QueryColumns {
  int position[kTile];
  uint32_t code[kTile], empty[kTile];
  float lse[kTile], delta[kTile];
};

template <class T>
constexpr int kKeyStages = sizeof(T) == 4 ? 2 : 3;

template <class T, int DQK, int DV>
struct KeyShared {
  Stage<T, DQK, DV> own, stages[kKeyStages<T>];
  QueryColumns columns[kKeyStages<T>];
  BinTable bins;  // of the codes that the keys hold
  uint16_t list[kSpan];
  int warp_counts[kKeyWarps];
  int first, first_living;
  uint32_t last_living;
};

template <class T, int DQK, int DV>
__global__ void __launch_bounds__(kKeyThreads, sizeof(T) == 2 && DV <= 128 ? 2 : 1)
    dkv_kernel(Layout layout, int most_tiles, int d_qk, int d_v, TileKeys keys, Rows<const T> Q,
               Rows<const T> K, Rows<const T> V, const float* __restrict__ lse, Rows<const T> dO,
               const float* __restrict__ delta, T* __restrict__ dK, T* __restrict__ dV) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto& shared = *reinterpret_cast<KeyShared<T, DQK, DV>*>(shared_bytes);
  zero_unused_rows(layout, dK, d_qk);
  zero_unused_rows(layout, dV, d_v);
  const Place place = place_of_block(layout, most_tiles, /*from_first=*/true);
  if (place.tile < 0) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = warp / 4,
            own = warp % 4 * 16 + lane / 4;
  const int n = place.n, j0 = place.tile * kTile;
  const auto key_of = [&](int r) { return j0 + r < n ? keys.order[place.begin + j0 + r] : -1; };
  const auto row_of_key = [&](int r) {
    const int j = key_of(r);
    return j < 0 ? int64_t{-1} : place.begin + j;
  };
  load_rows<DQK, kKeyThreads>(shared.own.narrow, K, d_qk, row_of_key);
  load_rows<DV, kKeyThreads>(shared.own.wide, V, d_v, row_of_key);
  commit_copies();
  shared.bins.clear();
  if (threadIdx.x == 0) {
    shared.first = shared.first_living = n;
    shared.last_living = 0;
  }
  int position[2];
  int64_t rows[2];
  uint32_t life[2], code[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    position[h] = key_of(own + 8 * h);
    rows[h] = position[h] < 0 ? -1 : place.begin + position[h];
    life[h] = rows[h] < 0 ? 0u : keys.life[rows[h]];
    code[h] = rows[h] < 0 || !keys.key_code ? 0u : keys.key_code[rows[h]];
  }
  __syncthreads();
  if (threadIdx.x < kTile) {
    const int j = key_of(threadIdx.x);
    if (j >= 0) {
      const uint32_t lives = keys.life[place.begin + j];
      atomicMin(&shared.first, j);
      if (lives > 0) {
        atomicMin(&shared.first_living, j);
        atomicMax(&shared.last_living, static_cast<uint32_t>(j) + lives - 1);
      }
      if (keys.key_code) {
        const uint32_t held = keys.key_code[place.begin + j];
        shared.bins.add(held >> keys.shift, held, held);
      }
    }
  }
  __syncthreads();

  // Queries before the keys matter only where they attend to everything.
  const auto load = [&](int i) {
    const int64_t row = place.begin + i;
    return make_uint2(keys.key_code ? keys.query_code[row] : 0u, keys.uniform_empty ? keys.empty[row] : 0u);
  };
  const auto wanted = [&](int i, const uint2& query) {
    if (query.y != 0) return true;
    if (i < shared.first) return false;
    if (i >= shared.first_living && static_cast<uint32_t>(i) <= shared.last_living) return true;
    const uint32_t low = query.x, high = low + keys.width;
    return keys.key_code && shared.bins.meets(high >> keys.shift, low, high - 1);
  };
  float dk[DQK / 8][4] = {}, dv[DV / 8][4] = {};
  const T *k_rows = shared.own.narrow + warp % 4 * 16 * (DQK + 8),
          *v_rows = shared.own.wide + warp % 4 * 16 * (DV + 8);
  const auto visit = [&](int, int stage) {
    const QueryColumns& columns = shared.columns[stage];
#pragma unroll 1
    for (int first = group * kHalf; first < (group + 1) * kHalf; first += kPiece) {
      const T *q_rows = shared.stages[stage].narrow + first * (DQK + 8),
              *do_rows = shared.stages[stage].wide + first * (DV + 8);
      float S[kPiece / 8][4], dP[kPiece / 8][4];  // transposed: keys by queries
      product<DQK>(S, k_rows, q_rows, lane);
      product<DV>(dP, v_rows, do_rows, lane);
#pragma unroll
      for (int t = 0; t < kPiece / 8; ++t) {
        const int c = first + t * 8 + lane % 4 * 2;
        const int2 i = *reinterpret_cast<const int2*>(&columns.position[c]);
        const uint2 asked = *reinterpret_cast<const uint2*>(&columns.code[c]);
        const float2 log_sum = *reinterpret_cast<const float2*>(&columns.lse[c]);
        const float2 d = *reinterpret_cast<const float2*>(&columns.delta[c]);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int h = e / 2;
          bool seen = may_attend(e % 2 ? i.y : i.x, e % 2 ? asked.y : asked.x, position[h], life[h], code[h],
                                 keys.width);
          float s = S[t][e];
          if (keys.uniform_empty && columns.empty[c + e % 2]) {
            seen = position[h] >= 0;
            s = 0.0f;
          }
          const float p = seen ? exp2_fast(fmaf(s, kLog2E, -(e % 2 ? log_sum.y : log_sum.x))) : 0.0f;
          S[t][e] = p;
          dP[t][e] = p * (dP[t][e] - (e % 2 ? d.y : d.x));
        }
      }
      accumulate<DV>(dv, S, do_rows, lane);
      accumulate<DQK>(dk, dP, q_rows, lane);
    }
  };
  for (int span = keys.uniform_empty ? 0 : shared.first / kSpan * kSpan; span < n; span += kSpan) {
    const int count =
        list_positions<kKeyWarps>(shared.list, shared.warp_counts, span, min(n, span + kSpan), load, wanted);
    const auto fetch = [&](int tile, int stage) {
      const auto query_row = [&](int r) {
        const int at = tile * kTile + r;
        return at < count ? place.begin + span + shared.list[at] : int64_t{-1};
      };
      load_rows<DQK, kKeyThreads>(shared.stages[stage].narrow, Q, d_qk, query_row);
      load_rows<DV, kKeyThreads>(shared.stages[stage].wide, dO, d_v, query_row);
      if (threadIdx.x >= kTile) return;
      const int r = threadIdx.x;
      const int64_t row = query_row(r), at = max(row, int64_t{0});
      QueryColumns& columns = shared.columns[stage];
      columns.position[r] = row < 0 ? -1 : static_cast<int>(row - place.begin);
      copy_word(&columns.code[r], keys.key_code ? keys.query_code + at : keys.life,
                keys.key_code && row >= 0);
      copy_word(&columns.empty[r], keys.empty + at, row >= 0);
      copy_word(&columns.lse[r], lse + at, row >= 0);
      copy_word(&columns.delta[r], delta + at, row >= 0);
    };
    for_tiles<kKeyStages<T>>(count, fetch, visit, [] {});
  }

  // The second group's sums, through shared memory that no tile needs any more.
  float* sums = reinterpret_cast<float*>(shared_bytes) + (warp % 4 * 32 + lane) * (DQK / 2 + DV / 2 + 1);
  static_assert(sizeof(float) * kTile * 2 * (DQK / 2 + DV / 2 + 1) <= sizeof(KeyShared<T, DQK, DV>));
  if (group == 1) {
#pragma unroll
    for (int t = 0; t < DQK / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[t * 4 + e] = dk[t][e];
    }
#pragma unroll
    for (int t = 0; t < DV / 8; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[DQK / 2 + t * 4 + e] = dv[t][e];
    }
  }
  __syncthreads();
  if (group == 1) return;
#pragma unroll
  for (int t = 0; t < DQK / 8; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) dk[t][e] += sums[t * 4 + e];
  }
#pragma unroll
  for (int t = 0; t < DV / 8; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) dv[t][e] += sums[DQK / 2 + t * 4 + e];
  }
  store_rows<DQK>(dK, dk, rows, d_qk, lane, 1.0f, 1.0f);
  store_rows<DV>(dV, dv, rows, d_v, lane, 1.0f, 1.0f);
}

}  // namespace

template <class T>
void attention_delta(const Layout& layout, const AttentionShape& shape, const T* O, Rows<const T> dO,
                     float* delta, cudaStream_t stream) {
  delta_kernel<<<static_cast<unsigned>(ceil_div(layout.rows * kDeltaLanes, kDeltaThreads)), kDeltaThreads, 0,
                 stream>>>(layout, static_cast<int>(shape.d_v), O, dO, delta);
  check_launch("attention_backward delta", shape_text(layout, shape));
}

template <class T>
void attention_dq(const Layout& layout, const AttentionShape& shape, const TileKeys& keys, Rows<const T> Q,
                  Rows<const T> K, Rows<const T> V, const float* lse, Rows<const T> dO, const float* delta,
                  T* dQ, cudaStream_t stream) {
  with_widths<T>(shape, [&](auto DQK, auto DV) {
    constexpr int kQk = decltype(DQK)::value, kV = decltype(DV)::value;
    const auto kernel = dq_kernel<T, kQk, kV>;
    const size_t bytes = allow_shared(kernel, kQueryStages * sizeof(Stage<T, kQk, kV>));
    kernel<<<blocks_of(layout), kQueryThreads, bytes, stream>>>(
        layout, most_tiles(layout), static_cast<int>(shape.d_qk), static_cast<int>(shape.d_v), keys, Q, K, V,
        lse, dO, delta, dQ);
  });
  check_launch("attention_backward dQ", shape_text(layout, shape));
}

template <class T>
void attention_dkv(const Layout& layout, const AttentionShape& shape, const TileKeys& keys, Rows<const T> Q,
                   Rows<const T> K, Rows<const T> V, const float* lse, Rows<const T> dO, const float* delta,
                   T* dK, T* dV, cudaStream_t stream) {
  with_widths<T>(shape, [&](auto DQK, auto DV) {
    constexpr int kQk = decltype(DQK)::value, kV = decltype(DV)::value;
    const auto kernel = dkv_kernel<T, kQk, kV>;
    const size_t bytes = allow_shared(kernel, sizeof(KeyShared<T, kQk, kV>));
    kernel<<<blocks_of(layout), kKeyThreads, bytes, stream>>>(
        layout, most_tiles(layout), static_cast<int>(shape.d_qk), static_cast<int>(shape.d_v), keys, Q, K, V,
        lse, dO, delta, dK, dV);
  });
  check_launch("attention_backward dK dV", shape_text(layout, shape));
}

#define HAX_INSTANTIATE(T)                                                                                   \
  template void attention_delta<T>(const Layout&, const AttentionShape&, const T*, Rows<const T>, float*,    \
                                   cudaStream_t);                                                            \
  template void attention_dq<T>(const Layout&, const AttentionShape&, const TileKeys&, Rows<const T>,        \
                                Rows<const T>, Rows<const T>, const float*, Rows<const T>, const float*, T*, \
                                cudaStream_t);                                                               \
  template void attention_dkv<T>(const Layout&, const AttentionShape&, const TileKeys&, Rows<const T>,       \
                                 Rows<const T>, Rows<const T>, const float*, Rows<const T>, const float*,    \
                                 T*, T*, cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(bf16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
