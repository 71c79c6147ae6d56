// CPU kernels of sparse attention (contract: lib/ops/sparse_attention.h).
//
// Both walk a sequence's queries in order and gather each query's keys from the memberships: from a range or
// a stride of positions, from the list of a bin's keys in order of rank, or from the running set of chosen
// keys. That costs what the keys cost, whatever the sequence's length, and no mask is ever built. Nothing but
// the softmax's log-sum-exp is kept for the backward pass: memory is linear in the number of tokens.
// Sequences do not share rows, so any split of them over threads gives the same bits.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/ops/cpu/rows.h"

namespace hax::cpu {

// One membership of a key set, as lib/ops/key_set.h defines them.
struct KeyRule {
  enum class Kind { full, window, sink, dilated, lsh, topk };
  Kind kind;
  int64_t width = 0;  // window, sink, lsh: width; dilated: dilation
  // lsh and topk, one element a token.
  const int64_t *query_bin = nullptr, *key_bin = nullptr, *rank = nullptr, *count = nullptr,
                *evicted = nullptr;
};

struct SparseAttentionShape {
  const int64_t* offsets;  // (B + 1)
  int64_t d_qk, d_v;
  int64_t padded_length;
  bool uniform_empty_rows;  // a query without keys: all padded_length positions equally, or a zero vector
};

// Sequences [begin, end): out (T, d_v), log_sum_exp (T), both contiguous.
void sparse_attention_forward(const SparseAttentionShape& shape, const std::vector<KeyRule>& rules,
                              ConstRows Q, ConstRows K, ConstRows V, int64_t begin, int64_t end, float* out,
                              float* log_sum_exp);

// Sequences [begin, end): dQ, dK (T, d_qk), dV (T, d_v), contiguous; written, not added to.
void sparse_attention_backward(const SparseAttentionShape& shape, const std::vector<KeyRule>& rules,
                               ConstRows Q, ConstRows K, ConstRows V, ConstRows out, ConstRows grad_out,
                               const float* log_sum_exp, int64_t begin, int64_t end, float* dQ, float* dK,
                               float* dV);

}  // namespace hax::cpu
