// Scored-position loss of the language model (spec section 1.1).
#pragma once

#include "lib/ops/layout.h"

namespace hax::ops {

struct CrossEntropy {
  at::Tensor loss;     // scalar, fp32 or wider: mean over the S rows; differentiable in logits
  at::Tensor correct;  // (S) bool: argmax over the whole vocabulary (first of ties) equals the target
};

// logits (S, V), target (S) int64.
CrossEntropy cross_entropy(const at::Tensor& logits, const at::Tensor& target, Path path = Path::automatic);

}  // namespace hax::ops
