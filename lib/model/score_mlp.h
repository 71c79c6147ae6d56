// The score MLP of key selection (spec section 3): s_j = MLP([K_j ; summary_j]), 2 d_qk -> 2 d_qk -> 2 d_qk
// -> 1 with ReLU, in the weights' dtype.
#pragma once

#include "lib/ops/torch.h"

namespace hax {

struct ScoreMlp {
  at::Tensor w1, b1, w2, b2, w3, b3;

  // keys, summary (rows, d_qk) -> (rows). Differentiable in the weights.
  at::Tensor score(const at::Tensor& keys, const at::Tensor& summary) const {
    const auto dtype = w1.scalar_type();
    at::Tensor x = at::cat({keys.to(dtype), summary.to(dtype)}, 1);
    x = at::linear(x, w1, b1).relu_();
    x = at::linear(x, w2, b2).relu_();
    return at::linear(x, w3, b3).squeeze(1);
  }
};

}  // namespace hax
