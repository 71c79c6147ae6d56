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

// The same with log-probabilities, loss and their gradients rounded to the logits' dtype, as a framework's
// loss of bf16 logits rounds them (spec section 3.1, `paper`); reductions keep at least fp32 inside.
CrossEntropy rounded_cross_entropy(const at::Tensor& logits, const at::Tensor& target,
                                   Path path = Path::automatic);

}  // namespace hax::ops
