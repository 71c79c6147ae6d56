// Softmax attention over a key set (lib/ops/sparse_attention.h) on packed sequences, bf16, by masked tiles on
// tensor cores. No matrix of queries by keys is ever in memory.
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
  const uint32_t* query_code;  // (rows)
  const uint8_t* empty;        // (rows) 1: the query has no key at all
  uint32_t width;
  bool uniform_empty;  // an empty query attends uniformly to padded_length positions, else it gets zero
  int64_t padded_length;
};

// Fills life, key_code, query_code (the last two only with LSH) and empty.
void tile_keys(const Layout& layout, const Memberships& memberships, uint32_t* life, uint32_t* key_code,
               uint32_t* query_code, uint8_t* empty, cudaStream_t stream);

struct AttentionShape {
  int64_t d_qk;  // a multiple of 8, at most 64
  int64_t d_v;   // a multiple of 8, at most kAttentionWidest
};
constexpr int64_t kAttentionWidest = 256;

// Rows 16-byte aligned. O (rows, d_v) contiguous; lse (rows) fp32.
void attention_forward(const Layout& layout, const AttentionShape& shape, const TileKeys& keys,
                       Rows<const __nv_bfloat16> Q, Rows<const __nv_bfloat16> K, Rows<const __nv_bfloat16> V,
                       __nv_bfloat16* O, float* lse, cudaStream_t stream);

// dQ, dK (rows, d_qk), dV (rows, d_v) contiguous; delta (rows) fp32 scratch.
void attention_backward(const Layout& layout, const AttentionShape& shape, const TileKeys& keys,
                        Rows<const __nv_bfloat16> Q, Rows<const __nv_bfloat16> K, Rows<const __nv_bfloat16> V,
                        const __nv_bfloat16* O, const float* lse, Rows<const __nv_bfloat16> dO,
                        __nv_bfloat16* dQ, __nv_bfloat16* dK, __nv_bfloat16* dV, float* delta,
                        cudaStream_t stream);

}  // namespace hax::ops::cuda
