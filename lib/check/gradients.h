// Are the gradients those of the loss? In fp64, autograd against central differences along a random direction
// of each parameter; then the arithmetic that trains (fp32, fused kernels) against fp64.
//
// Bins, top-k sets and the ranking loss's targets are choices that have no gradient: steps are so small that
// none of them changes, which is verified. The language-model loss is differentiated in every parameter, the
// ranking loss in the score MLP's, which it alone trains (K, Q and the targets are detached there).
#pragma once

#include <functional>
#include <string>

#include "lib/check/check_result.h"
#include "lib/model/language_model.h"

namespace hax {

// A scalar function of the model's parameters as they are, and whether its choices are those of the first
// call.
struct Objective {
  std::function<double()> value;
  std::function<bool()> same_choices;
};

// Both relative to |gradient| / sqrt(n), the size that a derivative along a random direction has.
struct DirectionalError {
  bool measured = false;  // false: every step changed a choice
  double error = 0.0;     // |difference quotient - <gradient, direction>|
  double noise = 0.0;     // what rounding of the function alone can make of it

  bool acceptable() const { return error <= 1e-5 + noise; }
};
// `value` is moved along a direction drawn from `seed`, and put back. All tensors in fp64.
DirectionalError directional_error(at::Tensor value, const at::Tensor& gradient, const Objective& objective,
                                   uint32_t seed);

CheckResult check_gradients(const LanguageModel& model, const Batch& batch);
CheckResult check_training_arithmetic(const LanguageModel& model, const Batch& batch);

}  // namespace hax
