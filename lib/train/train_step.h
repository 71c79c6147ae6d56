// One training step on a model: forward, loss, backward, checks, update. Knows nothing of schedules,
// validation, files or signals.
#pragma once

#include "lib/model/precision.h"
#include "lib/ops/cross_entropy.h"
#include "lib/train/optimiser.h"

namespace hax {

struct StepMetrics {
  double loss = 0.0;       // cross-entropy, mean over the batch's scored positions
  double aux_loss = 0.0;   // ranking loss, sum over layers, before its weight
  double accuracy = 0.0;   // per example, then mean
  double grad_norm = 0.0;  // before clipping
  int64_t tokens = 0;
  bool finite() const;
};

class TrainStep {
 public:
  // A step without its update: the gradient is in the parameters, `output` what the model gave.
  struct Gradients {
    StepMetrics metrics;
    ModelOutput output;
  };

  TrainStep(LanguageModel& model, const Config& config);

  Gradients gradients(const Batch& batch, const Draws& draws);

  // Update number `step` (from 0) with these draws. When the loss or the gradient is not finite, nothing is
  // updated and the returned metrics say so.
  StepMetrics run(const Batch& batch, int64_t step, const Draws& draws);

  AdamW& optimiser() { return optimiser_; }

 private:
  LanguageModel& model_;
  const Config config_;
  AdamW optimiser_;
};

// The draws of training step `step` under the config's seed and mode, and the bits of noise that decide its
// samples.
PhiloxDraws training_draws(const Config& config, int64_t step);
int noise_bits(const Config& config);

// The loss at scored positions as the config's mode and precision round it.
ops::CrossEntropy training_loss(const Config& config, const at::Tensor& logits, const at::Tensor& targets);

}  // namespace hax
