// What a step that was not finite looked like: divergence-N.json in the run folder.
#pragma once

#include <string>
#include <vector>

#include "lib/train/train_step.h"

namespace hax {

struct DivergedStep {
  int64_t step = 0;               // the update that did not take place, from 0
  int64_t batch = 0;              // its batch, in the run's sequence
  std::vector<int64_t> examples;  // of that batch, by their index in the source
  StepMetrics metrics;            // as training met them
};

// "loss nan, ranking loss 0.5, gradient norm inf"
std::string metrics_text(const StepMetrics& metrics);

// Repeats the step op by op without its update, and returns as JSON: update (from 1), batch, examples, lr;
// loss, aux_loss and grad_norm as training met them and as repeated; which parameters, gradients and
// activations hold numbers that are not finite, and how many; the norm of every parameter and gradient.
// Numbers that are not finite stand as "nan", "inf" and "-inf". The step's weights must still be in place.
std::string divergence_report(LanguageModel& model, TrainStep& step, const Config& config, const Batch& batch,
                              const DivergedStep& diverged);

}  // namespace hax
