// The ranking loss of the score MLP at sampled keys (spec section 3): what trains key selection.
#pragma once

#include "lib/ops/key_scores.h"

namespace hax::ops {

// ranking_loss of the MLP's scores at sampled positions (B, s) (lib/ops/key_selection.h), -1 where a sequence
// gives no sample: such a place takes part in no pair. K, summary (T, d), targets (B, s) are not
// differentiated; mlp is. Features, hidden features and scores are of the weights' dtype; the pairs are taken
// in `pairs`, which is that dtype or wider. Scalar, fp32 or wider.
at::Tensor sampled_ranking(const at::Tensor& K, const at::Tensor& summary, const at::Tensor& sampled,
                           const at::Tensor& targets, const ScoreMlp& mlp, const PackedLayout& layout,
                           at::ScalarType pairs, Path path = Path::automatic);

}  // namespace hax::ops
