#include "lib/train/optimiser.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace hax {

double learning_rate(const TrainConfig& config, int64_t step) {
  if (step < config.warmup_steps)
    return config.lr * static_cast<double>(step) / static_cast<double>(config.warmup_steps);
  if (config.schedule == Schedule::constant) return config.lr;
  const auto span = static_cast<double>(std::max<int64_t>(1, config.steps - 1 - config.warmup_steps));
  const double progress = std::min(1.0, static_cast<double>(step - config.warmup_steps) / span);
  const double low = config.lr * config.lr_min_ratio;
  return low + (config.lr - low) * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

AdamW::AdamW(ParameterSet& parameters, const TrainConfig& config) : parameters_(parameters), config_(config) {
  state_ = {at::zeros_like(parameters.flat()), at::zeros_like(parameters.flat())};
}

at::Tensor AdamW::grad_norm() const {
  const at::Tensor grad = parameters_.flat_grad();
  return at::linalg_vector_norm(grad, 2, at::OptionalIntArrayRef(), /*keepdim=*/false,
                                at::promote_types(grad.scalar_type(), at::kFloat));
}

void AdamW::update(int64_t step, double lr, double grad_norm) {
  const at::NoGradGuard no_grad;
  at::Tensor grad = parameters_.flat_grad();
  if (config_.grad_clip > 0.0 && grad_norm > config_.grad_clip) grad.mul_(config_.grad_clip / grad_norm);
  if (grad.scalar_type() == at::kBFloat16)
    rounded_update(grad, step, lr);
  else
    fused_update(grad, step, lr);
}

void AdamW::fused_update(const at::Tensor& grad, int64_t step, double lr) {
  // The fused kernel increments nothing itself: it reads the count of updates including this one.
  const at::Tensor count = at::full({}, static_cast<double>(step + 1), grad.options().dtype(at::kFloat));
  at::_fused_adamw_({parameters_.flat()}, {grad}, {state_.exp_avg}, {state_.exp_avg_sq}, {}, {count}, lr,
                    config_.beta1, config_.beta2, config_.weight_decay, config_.eps, /*amsgrad=*/false,
                    /*maximize=*/false);
}

void AdamW::rounded_update(const at::Tensor& grad, int64_t step, double lr) {
  at::Tensor weights = parameters_.flat();
  const double correction1 = 1.0 - std::pow(config_.beta1, static_cast<double>(step + 1));
  const double correction2 = 1.0 - std::pow(config_.beta2, static_cast<double>(step + 1));
  weights.mul_(1.0 - lr * config_.weight_decay);
  state_.exp_avg.lerp_(grad, 1.0 - config_.beta1);
  state_.exp_avg_sq.mul_(config_.beta2).addcmul_(grad, grad, 1.0 - config_.beta2);
  const at::Tensor denominator = (state_.exp_avg_sq.sqrt() / std::sqrt(correction2)).add_(config_.eps);
  weights.addcdiv_(state_.exp_avg, denominator, -lr / correction1);
}

}  // namespace hax
