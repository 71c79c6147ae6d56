#include "lib/check/consistency.h"

#include <algorithm>
#include <cmath>

#include "lib/check/probe.h"
#include "lib/model/sparse_branch.h"
#include "lib/ops/cross_entropy.h"

namespace hax {
namespace {

constexpr int64_t kSequences = 3, kTokens = 200;
constexpr double kTolerance = 1e-10;
constexpr double kRounding = 1e-4;  // of fp32 sums in another order

struct Pass {
  at::Tensor logits, gradient;  // flat
  double loss = 0.0;
};
Pass training_pass(LanguageModel& model, const ModelInput& input, at::ScalarType compute) {
  model.parameters().zero_grad();
  const ModelOutput output = model.forward(input, probe_draws(model.config(), true), compute);
  at::Tensor loss = ops::cross_entropy(output.logits, input.targets).loss;
  if (output.aux_loss.defined()) loss = loss + model.config().sparse.ranking_weight * output.aux_loss;
  loss.backward();
  return {output.logits.detach().clone(), model.parameters().flat_grad().clone(), loss.item<double>()};
}

// What differs between two passes, in any bit: "logits, the gradient of layers.0.mixer.D"; "" when nothing
// does.
std::string different(const LanguageModel& model, const Pass& a, const Pass& b) {
  std::string names = a.logits.equal(b.logits) ? "" : "logits";
  int64_t first = 0;
  for (const auto& parameter : model.parameters().all()) {
    const int64_t n = parameter->value.numel();
    if (!a.gradient.narrow(0, first, n).equal(b.gradient.narrow(0, first, n))) {
      names += (names.empty() ? "" : ", ") + ("the gradient of " + parameter->name);
    }
    first += n;
  }
  return names;
}

at::Tensor logits_of(const LanguageModel& model, const ModelInput& input) {
  const at::NoGradGuard no_grad;
  return model.forward(input, probe_draws(model.config(), false), at::kDouble).logits;
}

// Sequence b of the input alone.
ModelInput alone(const ModelInput& input, int64_t b) {
  const int64_t first = input.layout.offsets[b], n = input.layout.seqlen(b);
  ModelInput own;
  own.tokens = input.tokens.narrow(0, first, n);
  own.targets = input.targets.narrow(0, first, n);
  own.scored = at::arange(n, input.scored.options());
  own.layout = ops::make_layout({0, n}, input.layout.padded_length, input.tokens.device());
  return own;
}

}  // namespace

CheckResult check_determinism(const LanguageModel& given, const Batch& batch, at::ScalarType compute) {
  CheckResult result{"determinism", Verdict::pass, ""};
  LanguageModel model = copy_of(given, given.parameters().flat().scalar_type());
  const ModelInput input = probe_input(batch, kSequences, kTokens, model.device());
  const Pass first = training_pass(model, input, compute);
  result.detail = "two passes over " + std::to_string(input.layout.total()) +
                  " tokens give the same bytes of logits and gradients";
  const std::string unstable = different(model, training_pass(model, input, compute), first);
  if (!unstable.empty())
    return {result.name, Verdict::fail, "two passes over the same tokens differ in " + unstable};
  if (!model.device().is_cpu()) return result;
  const int threads = at::get_num_threads(), other = threads > 1 ? 1 : 2;
  at::set_num_threads(other);
  const Pass again = training_pass(model, input, compute);
  at::set_num_threads(threads);
  const std::string numbers = std::to_string(threads) + " and " + std::to_string(other);
  const std::string changed = different(model, again, first);
  if (changed.empty()) {
    result.detail += ", with " + numbers + " threads";
    return result;
  }
  const double size = std::max(relative_difference(again.logits, first.logits),
                               relative_difference(again.gradient, first.gradient));
  result.detail += "; with " + numbers +
                   " threads LibTorch's products are summed in another order, which changes " + changed +
                   " by " + in_words(size);
  if (!(size <= kRounding)) result.verdict = Verdict::fail;
  return result;
}

CheckResult check_packing(const LanguageModel& given, const Batch& batch) {
  CheckResult result{"packing", Verdict::pass, ""};
  const LanguageModel model = copy_of(given, at::kDouble);
  const ModelInput input = probe_input(batch, kSequences, kTokens, model.device());
  const at::Tensor together = logits_of(model, input);
  double worst = 0.0;
  for (int64_t b = 0; b < input.layout.batch(); ++b) {
    const at::Tensor own = together.narrow(0, input.layout.offsets[b], input.layout.seqlen(b));
    worst = std::max(worst, relative_difference(own, logits_of(model, alone(input, b))));
  }
  result.detail = std::to_string(input.layout.batch()) +
                  " sequences together and each alone, in fp64: logits differ by " + in_words(worst) +
                  " at most";
  if (!(worst <= kTolerance)) result.verdict = Verdict::fail;
  return result;
}

CheckResult check_padding(const LanguageModel& given, const Batch& batch) {
  CheckResult result{"padding", Verdict::pass, ""};
  const std::string by_definition = decoding_fault(given.config());
  if (!by_definition.empty()) {
    return {result.name, Verdict::skipped, "paper statistics count padded positions: " + by_definition};
  }
  const LanguageModel model = copy_of(given, at::kDouble);
  ModelInput input = probe_input(batch, kSequences, kTokens, model.device());
  const at::Tensor short_rows = logits_of(model, input);
  input.layout.padded_length += 1000;
  const double change = relative_difference(logits_of(model, input), short_rows);
  result.detail = "a padded row longer by 1000 changes logits by " + in_words(change);
  if (!(change <= kTolerance)) result.verdict = Verdict::fail;
  return result;
}

CheckResult check_training_signal(const LanguageModel& given, const Batch& batch, at::ScalarType compute) {
  CheckResult result{"training signal", Verdict::pass, ""};
  LanguageModel model = copy_of(given, given.parameters().flat().scalar_type());
  const ModelInput input = probe_input(batch, kSequences, kTokens, model.device());
  const Pass pass = training_pass(model, input, compute);
  std::string broken, silent;
  for (const auto& parameter : model.parameters().all()) {
    const at::Tensor& gradient = parameter->value.grad();
    if (!gradient.isfinite().all().item<bool>()) broken += (broken.empty() ? "" : ", ") + parameter->name;
    // Differences of scores do not feel a common shift.
    const bool shift = parameter->name.ends_with(std::string(kScoreMlpName) + "3.bias");
    if (!shift && !gradient.any().item<bool>()) silent += (silent.empty() ? "" : ", ") + parameter->name;
  }
  result.detail = "the loss is " + in_words(pass.loss) + ", and every one of " +
                  std::to_string(model.parameters().all().size()) + " parameters has a finite gradient";
  if (!std::isfinite(pass.loss) || !broken.empty()) {
    result.verdict = Verdict::fail;
    result.detail = "not finite: " + (broken.empty() ? std::string("the loss") : "the gradient of " + broken);
  } else if (!silent.empty()) {
    result.verdict = Verdict::fail;
    result.detail = "no gradient reaches " + silent;
  }
  return result;
}

}  // namespace hax
