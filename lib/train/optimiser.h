// AdamW (Loshchilov and Hutter 2019) with decoupled weight decay on every parameter, on the flat buffers.
//
// Weights and state in fp32 take one fused update. In bf16 (train.precision: pure_bf16) every operation of
// the update is rounded to bf16, in the order of the unfused optimiser that the official code trains with:
// its small steps get lost in the weights, and its second moment hardly decays.
#pragma once

#include "lib/config/config.h"
#include "lib/model/checkpoint.h"

namespace hax {

// Learning rate of update `step` (from 0): linear warm-up from 0, so the first update of a run with warm-up
// has rate 0, as in the paper; then constant, or a cosine that reaches lr * lr_min_ratio at the last step.
double learning_rate(const TrainConfig& config, int64_t step);

class AdamW {
 public:
  AdamW(ParameterSet& parameters, const TrainConfig& config);

  // Euclidean norm of the flat gradient, fp32 or wider scalar on the device.
  at::Tensor grad_norm() const;
  // One update from the accumulated gradient, which is first scaled to norm grad_clip if that is set and
  // smaller than grad_norm. `step` counts from 0 and fixes the bias correction.
  void update(int64_t step, double lr, double grad_norm);

  OptimizerState& state() { return state_; }
  const OptimizerState& state() const { return state_; }

 private:
  void fused_update(const at::Tensor& grad, int64_t step, double lr);
  void rounded_update(const at::Tensor& grad, int64_t step, double lr);

  ParameterSet& parameters_;
  const TrainConfig config_;
  OptimizerState state_;
};

}  // namespace hax
