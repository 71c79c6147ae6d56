#include "lib/check/gradients.h"

#include <algorithm>
#include <cmath>

#include "lib/base/random.h"
#include "lib/check/probe.h"
#include "lib/model/sparse_branch.h"
#include "lib/ops/cross_entropy.h"

namespace hax {
namespace {

constexpr int64_t kSequences = 2, kTokens = 48;
// fp32 against fp64, by norm; a gradient that is next to nothing beside the largest one is all rounding (that
// of the score MLP's last bias is zero).
constexpr double kTrainingTolerance = 1e-3;
constexpr double kNoiseShare = 1e-4;

at::Tensor direction(const at::Tensor& like, uint32_t seed) {
  at::Tensor v = at::empty(like.sizes(), at::TensorOptions().dtype(at::kDouble));
  RandomStream random({.seed = seed, .purpose = Purpose::test});
  double* data = v.mutable_data_ptr<double>();
  for (int64_t i = 0; i < v.numel(); ++i) data[i] = random.normal();
  return (v / v.norm()).to(like.device());
}

bool is_score_parameter(const std::string& name) {
  return name.find("." + std::string(kScoreMlpName)) != std::string::npos;
}

at::Tensor language_loss(const ModelOutput& output, const ModelInput& input) {
  return ops::cross_entropy(output.logits, input.targets).loss;
}

// Zeros (fresh biases) moved away: a unit whose inputs are all off would stand exactly on the kink of its
// ReLU.
void leave_kinks(LanguageModel& model) {
  const at::NoGradGuard no_grad;
  const at::Tensor flat = model.parameters().flat();
  flat.copy_(
      at::where(flat == 0, 0.05 * direction(flat, 1) * std::sqrt(static_cast<double>(flat.numel())), flat));
}

// Gradients of both losses at once: they meet in no parameter.
struct Gradients {
  std::vector<at::Tensor> of_parameter;
  ModelOutput output;
};
Gradients gradients_of(LanguageModel& model, const ModelInput& input, at::ScalarType type) {
  model.parameters().zero_grad();
  Gradients result;
  result.output = model.forward(input, probe_draws(model.config(), true), type);
  at::Tensor loss = language_loss(result.output, input);
  if (result.output.aux_loss.defined()) loss = loss + result.output.aux_loss;
  loss.backward();
  for (const auto& parameter : model.parameters().all()) {
    result.of_parameter.push_back(parameter->value.grad().to(at::kDouble).clone());
  }
  return result;
}

}  // namespace

DirectionalError directional_error(at::Tensor value, const at::Tensor& gradient, const Objective& objective,
                                   uint32_t seed) {
  const at::NoGradGuard no_grad;
  const at::Tensor kept = value.detach().clone();
  const double norm = kept.norm().item<double>(), size = gradient.norm().item<double>();
  const at::Tensor v = direction(value, seed);
  DirectionalError best;
  for (const double relative : {1e-4, 1e-5, 1e-6, 1e-7}) {
    const double step = relative * std::max(norm, 0.1);
    const auto moved = [&](double by) {
      value.detach().copy_(kept + by * v);
      const double y = objective.value();
      const bool same = objective.same_choices();
      value.detach().copy_(kept);
      return std::pair(y, same);
    };
    const auto [above, same_above] = moved(step);
    const auto [below, same_below] = moved(-step);
    if (!same_above || !same_below) continue;
    const double quotient = (above - below) / (2 * step), exact = (gradient * v).sum().item<double>();
    const double scale =
        std::max(1e-12, size / std::sqrt(static_cast<double>(std::max<int64_t>(1, value.numel()))));
    const DirectionalError found{true, std::abs(quotient - exact) / scale,
                                 16 * 2.2e-16 * std::max(1.0, std::abs(above)) / step / scale};
    if (!best.measured || !(found.error >= best.error)) best = found;
    if (best.acceptable()) break;
  }
  return best;
}

CheckResult check_gradients(const LanguageModel& given, const Batch& batch) {
  CheckResult result{"gradients", Verdict::pass, ""};
  LanguageModel model = copy_of(given, at::kDouble);
  leave_kinks(model);
  const ModelInput input = probe_input(batch, kSequences, kTokens, model.device());
  const PhiloxDraws draws = probe_draws(model.config(), true);
  const Gradients exact = gradients_of(model, input, at::kDouble);

  ModelOutput last;
  const auto objective = [&](bool ranking) {
    return Objective{[&, ranking] {
                       last = model.forward(input, draws, at::kDouble);
                       return (ranking ? last.aux_loss : language_loss(last, input)).item<double>();
                     },
                     [&] { return same_choices(last.branches, exact.output.branches); }};
  };
  const auto& parameters = model.parameters().all();
  int64_t checked = 0;
  double worst = 0.0;
  std::string unmeasured, wrong;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i]->name;
    const DirectionalError found =
        directional_error(parameters[i]->value, exact.of_parameter[i], objective(is_score_parameter(name)),
                          static_cast<uint32_t>(i));
    if (!found.measured) {
      unmeasured += (unmeasured.empty() ? "" : ", ") + name;
      continue;
    }
    ++checked;
    worst = std::max(worst, found.error);
    if (!found.acceptable()) {
      wrong += (wrong.empty() ? "" : ", ") + name + " (off by " + in_words(found.error) + ")";
    }
  }
  result.detail = std::to_string(checked) + " of " + std::to_string(parameters.size()) +
                  " parameters in fp64, each along a random direction: off by " + in_words(worst) +
                  " at most";
  if (!unmeasured.empty()) result.detail += "; no step left the choices as they were for " + unmeasured;
  if (!wrong.empty()) {
    const auto& branches = exact.output.branches;
    const bool official = std::any_of(branches.begin(), branches.end(), [&](const BranchOutput& branch) {
      return attends_to_all(branch, input.layout);
    });
    result.verdict = official ? Verdict::expected_failure : Verdict::fail;
    result.detail = "autograd and central differences disagree in " + wrong;
    if (official) {
      result.detail +=
          ". By definition: model.mode = paper lets a query without a key attend to all positions alike, "
          "with the "
          "gradient of a softmax";
    }
  } else if (checked == 0) {
    result.verdict = Verdict::skipped;
  }
  return result;
}

CheckResult check_training_arithmetic(const LanguageModel& given, const Batch& batch) {
  CheckResult result{"fp32 against fp64", Verdict::pass, ""};
  LanguageModel wide = copy_of(given, at::kDouble), narrow = copy_of(given, at::kFloat);
  for (int64_t tokens : {kTokens, kTokens / 2, kTokens / 4}) {
    const ModelInput input = probe_input(batch, kSequences, tokens, given.device());
    const Gradients exact = gradients_of(wide, input, at::kDouble);
    const Gradients trained = gradients_of(narrow, input, at::kFloat);
    // A score next to a tie may go the other way in fp32, and then the losses are not the same function.
    if (!same_choices(exact.output.branches, trained.output.branches)) continue;
    const double logits = relative_difference(trained.output.logits, exact.output.logits);
    double worst = 0.0, largest = 0.0;
    for (const auto& gradient : exact.of_parameter)
      largest = std::max(largest, gradient.norm().item<double>());
    std::string wrong;
    for (size_t i = 0; i < exact.of_parameter.size(); ++i) {
      const at::Tensor& expected = exact.of_parameter[i];
      const double norm = expected.norm().item<double>();
      const double error =
          (trained.of_parameter[i] - expected).norm().item<double>() / std::max(norm, kNoiseShare * largest);
      worst = std::max(worst, std::isfinite(error) ? error : INFINITY);
      if (!(error <= kTrainingTolerance)) {
        wrong +=
            (wrong.empty() ? "" : ", ") + narrow.parameters().all()[i]->name + " (" + in_words(error) + ")";
      }
    }
    if (!(logits <= kTrainingTolerance))
      wrong = "the logits (" + in_words(logits) + ")" + (wrong.empty() ? "" : ", ") + wrong;
    result.detail = "logits differ by " + in_words(logits) + ", gradients by " + in_words(worst) +
                    " at most, over " + std::to_string(input.layout.total()) + " tokens";
    if (!wrong.empty()) {
      result.verdict = Verdict::fail;
      result.detail = "fp32 and fp64 disagree in " + wrong;
    }
    return result;
  }
  result.verdict = Verdict::skipped;
  result.detail = "every piece of the examples has a score so close to a tie that fp32 chooses another key";
  return result;
}

}  // namespace hax
