// Key selection: scores, running top-k, and the ranking loss that trains the scores (spec section 3).
#pragma once

#include "lib/ops/key_set.h"

namespace hax::ops {

// Query summary, (T, d) -> (T, d); not differentiable. `causal`: running sum in fp32 or wider, each
// position's vector divided by its norm.
at::Tensor query_summary_causal(const at::Tensor& Q, const PackedLayout& layout, Path path = Path::automatic);
// `paper`: running sum, norm and result in Q's dtype (of bf16 every partial sum is rounded), each feature
// divided by its norm over the padded sequence (padded positions repeat the last sum, and enter in closed
// form; so the summary there is the last real position's).
at::Tensor query_summary_paper(const at::Tensor& Q, const PackedLayout& layout, Path path = Path::automatic);

// scores (T): eviction times of the running top-k of each sequence; ties go to the earlier position. k >= 1.
// `max_pairs` bounds the (key, key) matrices of the composite path alone.
TopkMembership cumulative_topk(const at::Tensor& scores, int64_t k, const PackedLayout& layout,
                               Path path = Path::automatic, int64_t max_pairs = int64_t{1} << 27);

// What the score MLP reads at sampled positions (B, s): (B s, 2 d) of `type`, [K_j ; summary_j]. A position
// behind the sequence's end is a padded key, K_j = 0, whose summary is that of the last token; -1 reads
// position 0. Not differentiable.
at::Tensor sampled_features(const at::Tensor& K, const at::Tensor& summary, const at::Tensor& sampled,
                            const PackedLayout& layout, at::ScalarType type);

// y_j = sum_{i >= j} sigmoid(Q_i . K_j) at the sampled keys; not differentiable. Q, K (T, d); sampled (B, s)
// positions, -1 where a sequence gives no sample (its target is 0); pad_queries (B) int64: how many padded
// queries (each worth sigmoid(0) = 0.5) follow the real ones; undefined: none, as under `causal`. A sampled
// position behind the sequence's end is a padded key, K = 0: y_j = 0.5 * (padded queries from j on). Returns
// (B, s) of `type`, which is Q's dtype (`paper`) or wider (`causal`); products and sigmoids are rounded to
// it, sums are fp32 or wider inside.
at::Tensor ranking_targets(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& sampled,
                           const at::Tensor& pad_queries, const PackedLayout& layout, at::ScalarType type,
                           Path path = Path::automatic);

// Mean over all pairs (j, l) of all sequences of BCEWithLogits(s_j - s_l, t_jl),
// t_jl = ([y_j > y_l] + [y_j >= y_l]) / 2. scores, targets (B, s); valid (B, s) bool: pairs with an invalid
// member do not count, and without any valid pair the loss is 0. Scalar, fp32 or wider; the pairs'
// differences are rounded to the scores' dtype. Differentiable in scores.
at::Tensor ranking_loss(const at::Tensor& scores, const at::Tensor& targets, const at::Tensor& valid);

}  // namespace hax::ops
