#include "lib/check/initial_loss.h"

#include <cmath>
#include <set>

#include "lib/check/probe.h"
#include "lib/ops/cross_entropy.h"

namespace hax {

LossRange initial_loss_range(const ModelConfig& config, int64_t vocab_size, int64_t answers) {
  const auto d = static_cast<double>(config.d_model), V = static_cast<double>(vocab_size);
  const double s = config.init_std, deviation = s * std::sqrt(d);
  const double margin = 4.0 * deviation / std::sqrt(static_cast<double>(answers)) + 0.02;
  // log((V - 1) exp(a) + exp(b)) from the larger of the two on: b may be hundreds.
  const double a = std::log(V - 1.0) + d * s * s / 2.0, b = d * s;
  return {std::log(V) - margin, std::max(a, b) + std::log1p(std::exp(-std::abs(a - b))) + margin};
}

CheckResult check_initial_loss(const ModelConfig& config, int64_t vocab_size, uint64_t seed,
                               const Batch& batch, at::Device device) {
  const at::NoGradGuard no_grad;
  const LanguageModel model(config, vocab_size, seed, device);
  const ModelInput input = to_device(batch, device);
  const at::Tensor logits = model.forward(input, probe_draws(config, false), at::kFloat).logits;
  const double loss = ops::cross_entropy(logits, input.targets).loss.item<double>();
  const auto answers = static_cast<int64_t>(std::set(batch.targets.begin(), batch.targets.end()).size());
  const LossRange range = initial_loss_range(config, vocab_size, answers);
  CheckResult result{"initial loss", Verdict::pass, ""};
  if (!(loss >= range.low && loss <= range.high)) result.verdict = Verdict::fail;
  result.detail = "fresh weights give " + in_words(loss, 4) + "; log " + std::to_string(vocab_size) + " is " +
                  in_words(std::log(static_cast<double>(vocab_size)), 4) + ", and " + in_words(range.low, 4) +
                  " to " + in_words(range.high, 4) + " may be at d_model " + std::to_string(config.d_model) +
                  " and init_std " + in_words(config.init_std);
  return result;
}

}  // namespace hax
