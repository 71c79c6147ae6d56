// Everything that can be said of a model without training it: one list of checks.
#pragma once

#include <functional>

#include "lib/check/check_result.h"
#include "lib/model/language_model.h"

namespace hax {

// `batch`: a few whole examples of what the model reads. `seed`: of fresh weights. `compute`: the type of
// training's activations. `done` hears of each result as it comes.
std::vector<CheckResult> check_model(const LanguageModel& model, const Batch& batch, uint64_t seed,
                                     at::ScalarType compute,
                                     const std::function<void(const CheckResult&)>& done = {});

}  // namespace hax
