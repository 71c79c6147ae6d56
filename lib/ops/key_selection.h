// Key selection: scores, running top-k, and the ranking loss that trains the scores (spec section 3).
#pragma once

#include "lib/ops/key_set.h"

namespace hax::ops {

// Query summary, (T, d) -> (T, d). `causal`: running sum in fp32, each position's vector divided by its norm.
at::Tensor query_summary_causal(const at::Tensor& Q, const PackedLayout& layout);
// `paper`: running sum, each feature divided by its norm over the padded sequence (padded positions repeat
// the last sum, and enter in closed form).
at::Tensor query_summary_paper(const at::Tensor& Q, const PackedLayout& layout);

// scores (T): eviction times of the running top-k of each sequence; ties go to the earlier position.
TopkMembership cumulative_topk(const at::Tensor& scores, int64_t k, const PackedLayout& layout,
                               Path path = Path::automatic);

// y_j = sum_{i >= j} sigmoid(Q_i . K_j) at the sampled keys. Q, K (T, d) detached; sampled (B, s) positions
// inside the sequences, -1 where a sequence gives no sample; pad_queries (B): how many padded queries (each
// worth sigmoid(0) = 0.5) count for every key, zero under `causal`. Returns (B, s), fp32 or wider.
at::Tensor ranking_targets(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& sampled,
                           const at::Tensor& pad_queries, const PackedLayout& layout);

// Mean over all pairs (j, l) of all sequences of BCEWithLogits(s_j - s_l, t_jl),
// t_jl = ([y_j > y_l] + [y_j >= y_l]) / 2. scores, targets (B, s); valid (B, s) bool: pairs with an invalid
// member do not count. Scalar, differentiable in scores.
at::Tensor ranking_loss(const at::Tensor& scores, const at::Tensor& targets, const at::Tensor& valid);

}  // namespace hax::ops
