#include "lib/train/train_step.h"

#include <cmath>

namespace hax {
namespace {

// Mean over examples of the fraction of their scored positions that are right.
at::Tensor mean_example_accuracy(const at::Tensor& correct, const Batch& batch) {
  std::vector<float> weights(batch.scored.size());
  for (int64_t b = 0; b < batch.size(); ++b) {
    const int32_t first = batch.cu_scored[b], last = batch.cu_scored[b + 1];
    for (int32_t i = first; i < last; ++i)
      weights[i] = 1.0f / static_cast<float>((last - first) * batch.size());
  }
  return (correct.to(at::kFloat) * at::tensor(weights, at::kFloat).to(correct.device())).sum();
}

// The official code draws the noise of its samples and takes its loss in the weights' dtype, bf16.
bool rounds_as_official(const Config& config) {
  return config.model.mode == Statistics::paper && config.train.precision == Precision::pure_bf16;
}

}  // namespace

bool StepMetrics::finite() const {
  return std::isfinite(loss) && std::isfinite(aux_loss) && std::isfinite(grad_norm);
}

TrainStep::TrainStep(LanguageModel& model, const Config& config)
    : model_(model), config_(config), optimiser_(model.parameters(), config.train) {}

PhiloxDraws training_draws(const Config& config, int64_t step) {
  return PhiloxDraws(static_cast<uint64_t>(config.train.seed), static_cast<uint32_t>(step), /*training=*/true,
                     /*fixed_eval_hash=*/config.model.mode == Statistics::causal,
                     /*fill_with_pad=*/config.model.mode == Statistics::paper, noise_bits(config));
}

int noise_bits(const Config& config) { return rounds_as_official(config) ? 8 : 32; }

ops::CrossEntropy training_loss(const Config& config, const at::Tensor& logits, const at::Tensor& targets) {
  return rounds_as_official(config) ? ops::rounded_cross_entropy(logits, targets)
                                    : ops::cross_entropy(logits, targets);
}

TrainStep::Gradients TrainStep::gradients(const Batch& batch, const Draws& draws) {
  const ModelInput input = to_device(batch, model_.device());
  model_.parameters().zero_grad();
  ModelOutput output = model_.forward(input, draws, compute_dtype(config_.train.precision));
  const auto result = training_loss(config_, output.logits, input.targets);
  at::Tensor total = result.loss;
  if (output.aux_loss.defined()) total = total + config_.model.sparse.ranking_weight * output.aux_loss;
  total.backward();

  const at::NoGradGuard no_grad;
  const at::Tensor aux =
      output.aux_loss.defined() ? output.aux_loss.to(at::kFloat) : at::zeros_like(result.loss);
  // One transfer to the host a step.
  const at::Tensor scalars =
      at::stack({result.loss.to(at::kFloat), aux.to(at::kFloat), mean_example_accuracy(result.correct, batch),
                 optimiser_.grad_norm().to(at::kFloat)})
          .to(at::kCPU);
  const float* s = scalars.const_data_ptr<float>();
  return {{s[0], s[1], s[2], s[3], input.layout.total()}, std::move(output)};
}

StepMetrics TrainStep::run(const Batch& batch, int64_t step, const Draws& draws) {
  const StepMetrics metrics = gradients(batch, draws).metrics;
  if (metrics.finite()) optimiser_.update(step, learning_rate(config_.train, step), metrics.grad_norm);
  return metrics;
}

}  // namespace hax
