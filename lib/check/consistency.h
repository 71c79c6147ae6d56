// Does a model say the same thing every time, and the same of a sequence whatever lies beside it?
#pragma once

#include "lib/check/check_result.h"
#include "lib/model/language_model.h"

namespace hax {

// Two passes forward and back, in the types that training computes in: equal bytes. On a CPU also with one
// thread.
CheckResult check_determinism(const LanguageModel& model, const Batch& batch, at::ScalarType compute);
// Several sequences together and each alone, in fp64.
CheckResult check_packing(const LanguageModel& model, const Batch& batch);
// A longer padded row changes nothing; in `paper` mode some statistics count it.
CheckResult check_padding(const LanguageModel& model, const Batch& batch);
// Loss and gradients are finite in training's types, and every parameter has a gradient.
CheckResult check_training_signal(const LanguageModel& model, const Batch& batch, at::ScalarType compute);

}  // namespace hax
