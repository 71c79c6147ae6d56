// Training steps one after another, their metrics read now and then: the host need not wait for the device.
#pragma once

#include <memory>
#include <vector>

#include "lib/train/train_step.h"

namespace hax {

class StepQueue {
 public:
  virtual ~StepQueue() = default;
  // Starts update number `step`; steps come in turn.
  virtual void push(const Batch& batch, int64_t step) = 0;
  // Is it known already, without waiting, that a step was not finite?
  virtual bool failed() const = 0;
  // Waits for what was pushed. Metrics of the steps since the last drain, in order; they end with the first
  // that was not finite, whose update and all after it did not take place.
  virtual std::vector<StepMetrics> drain() = 0;
};

// How many batches to make ahead for a queue on this device.
inline int64_t batches_ahead(at::Device device) { return device.is_cuda() ? 4 : 0; }

// On a GPU: steps captured as CUDA graphs, one for each size of batch met, rounded up; where the model has an
// op without a fused kernel, and elsewhere: steps run op by op. `data`: what batches look like. `step` owns
// the optimiser and must outlive the queue. Faults of the device are RuntimeErrors
// (lib/train/guarded_steps.h).
std::unique_ptr<StepQueue> make_step_queue(LanguageModel& model, TrainStep& step, const Config& config,
                                           const DataSpec& data);

}  // namespace hax
