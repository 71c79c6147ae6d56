// Whole training steps as CUDA graphs: no launch, allocation or synchronisation by the host inside a step.
#pragma once

#include <memory>

#include "lib/train/step_queue.h"

namespace hax {

// Goes over to `fallback`, with one line in the log, when the model has an op that cannot be captured.
std::unique_ptr<StepQueue> make_captured_steps(LanguageModel& model, TrainStep& step, const Config& config,
                                               const DataSpec& data, std::unique_ptr<StepQueue> fallback);

}  // namespace hax
