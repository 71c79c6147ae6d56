// Forwards captured as CUDA graphs. Built with HAX_CUDA.
#pragma once

#include <memory>

#include "lib/eval/scorer.h"

namespace hax {

// Batches that are not of batch_size, and all of them once the model shows an op that cannot be captured, go
// to `fallback`.
std::unique_ptr<Scorer> make_captured_scorer(const LanguageModel& model, const EvaluationDraws& draws,
                                             const DataSpec& data, int64_t batch_size, bool with_predicted,
                                             std::unique_ptr<Scorer> fallback);

}  // namespace hax
