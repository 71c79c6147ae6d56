// The score MLP of key selection (spec section 3): s_j = MLP([K_j ; summary_j]), 2 d_qk -> 2 d_qk -> 2 d_qk
// -> 1 with ReLU.
#pragma once

#include "lib/ops/layout.h"

namespace hax::ops {

struct ScoreMlp {
  at::Tensor w1, b1, w2, b2, w3, b3;

  // keys, summary (rows, d_qk) -> (rows), in the weights' dtype. Differentiable in the weights.
  at::Tensor score(const at::Tensor& keys, const at::Tensor& summary) const {
    const auto dtype = w1.scalar_type();
    return score(at::cat({keys.to(dtype), summary.to(dtype)}, 1));
  }
  // features (rows, 2 d_qk): keys and summaries side by side, in the weights' dtype.
  at::Tensor score(const at::Tensor& features) const {
    at::Tensor x = at::linear(features, w1, b1).relu_();
    x = at::linear(x, w2, b2).relu_();
    return at::linear(x, w3, b3).squeeze(1);
  }
};

// The scores of all keys, not differentiable. K (T, d_qk), summary (T, d_qk) -> (T) in the weights' dtype; on
// a GPU and for bf16 keys by one kernel whose hidden features are bf16.
at::Tensor key_scores(const at::Tensor& K, const at::Tensor& summary, const ScoreMlp& mlp,
                      const PackedLayout& layout, Path path = Path::automatic);

}  // namespace hax::ops
