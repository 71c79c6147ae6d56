// Softmax attention over a key set (lib/ops/sparse_attention.h) on packed sequences, by masked tiles on
// tensor cores: bf16, or fp32 of about 21 bits. No matrix of queries by keys is ever in memory. A tile looks
// only at keys (or queries) that it shares a pair with.
//
// A key set becomes three numbers a key and one a query. Positions i (query), j (key) of one sequence:
//   lives    0 <= i - j < life_j          covers full, window, sink, dilated, top-k and any union of them
//   matches  0 <= key_code_j - query_code_i < width  (unsigned)     covers LSH
// With code = (bin + 1) 2^s + rank and query_code = (bin + 1) 2^s + count - width, the second says that the
// bins are equal and count_i - width <= rank_j < count_i, if 2^s > max_seqlen + width.
#pragma once

#include <cuda_bf16.h>

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// Memberships as they come; null or -1: absent.
struct Memberships {
  bool full = false;
  int64_t window = -1;
  int64_t sink = -1;
  int64_t dilation = -1;
  const int64_t* evicted = nullptr;  // (rows)
  const int64_t *query_bin = nullptr, *key_bin = nullptr, *rank = nullptr, *count = nullptr;
  int64_t lsh_width = 0;
  int64_t lsh_bins = 0;
};

// 2^s of the codes as s, or -1 where 32 bits do not hold them.
int lsh_code_shift(int64_t bins, int64_t width, int64_t max_seqlen);

struct TileKeys {
  const uint32_t* life;        // (rows)
  const uint32_t* key_code;    // (rows), null without LSH
  const uint32_t* query_code;  // (rows), null without LSH
  const uint32_t* empty;       // (rows) not 0: the query has no key at all
  const int32_t* order;        // (rows) each sequence's positions, those of keys with a life first
  uint32_t width;              // 0 without LSH
  int shift;                   // s of the codes
  bool uniform_empty;  // there may be empty queries, which attend uniformly to padded_length positions; else
                       // they get zero
  int64_t padded_length;
};

// The numbers of a key set, in `words` of tile_key_words(rows) words.
constexpr int64_t tile_key_words(int64_t rows) { return 5 * rows; }
TileKeys tile_keys(const Layout& layout, const Memberships& memberships, bool uniform_empty,
                   int64_t padded_length, uint32_t* words, cudaStream_t stream);

// Of d_v; fp32 tiles take twice the room.
template <class T>
constexpr int64_t kAttentionWidest = sizeof(T) == 2 ? 256 : 128;
struct AttentionShape {
  int64_t d_qk;  // a multiple of 8, at most 64
  int64_t d_v;   // a multiple of 8, at most kAttentionWidest<T>
};

// T: float or __nv_bfloat16. Rows 16-byte aligned. O (rows, d_v) contiguous; lse (rows): log2 of the sum of
// e^score.
template <class T>
void attention_forward(const Layout& layout, const AttentionShape& shape, const TileKeys& keys,
                       Rows<const T> Q, Rows<const T> K, Rows<const T> V, T* O, float* lse,
                       cudaStream_t stream);

// Backward: delta (rows) = the row sums of O dO, which the others read; dQ, dK (rows, d_qk), dV (rows, d_v)
// contiguous. attention_dq and attention_dkv need not wait for each other.
template <class T>
void attention_delta(const Layout& layout, const AttentionShape& shape, const T* O, Rows<const T> dO,
                     float* delta, cudaStream_t stream);
template <class T>
void attention_dq(const Layout& layout, const AttentionShape& shape, const TileKeys& keys, Rows<const T> Q,
                  Rows<const T> K, Rows<const T> V, const float* lse, Rows<const T> dO, const float* delta,
                  T* dQ, cudaStream_t stream);
template <class T>
void attention_dkv(const Layout& layout, const AttentionShape& shape, const TileKeys& keys, Rows<const T> Q,
                   Rows<const T> K, Rows<const T> V, const float* lse, Rows<const T> dO, const float* delta,
                   T* dK, T* dV, cudaStream_t stream);

}  // namespace hax::ops::cuda
