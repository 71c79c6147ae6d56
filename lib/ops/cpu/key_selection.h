// CPU kernels of key selection (contracts: lib/ops/key_selection.h). Each works on the sequences [begin, end)
// of a packed tensor, whose rows of sequence b are offsets[b] .. offsets[b + 1); no two sequences share a
// row.
#pragma once

#include <cstdint>

#include "lib/ops/cpu/rows.h"

namespace hax::cpu {

// y (T, d) contiguous: running sums of Q's rows, each divided by its own norm.
void query_summary_causal(ConstRows Q, int64_t d, const int64_t* offsets, int64_t begin, int64_t end,
                          float* y);

// Eviction times of the running top-k, in O(n log k) a sequence.
void cumulative_topk(const float* scores, int64_t k, const int64_t* offsets, int64_t begin, int64_t end,
                     int64_t* evicted);

// targets (B, s): see ranking_targets. sampled (B, s), pad_queries (B).
void ranking_targets(ConstRows Q, ConstRows K, int64_t d, const int64_t* sampled, int64_t s,
                     const int64_t* pad_queries, const int64_t* offsets, int64_t begin, int64_t end,
                     float* targets);

}  // namespace hax::cpu
