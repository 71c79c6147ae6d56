#include "lib/train/divergence.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

namespace hax {
namespace {

using Json = nlohmann::ordered_json;

// A nan has no sign worth showing.
const char* not_finite_text(double x) { return std::isnan(x) ? "nan" : x > 0 ? "inf" : "-inf"; }

Json number(double x) {
  if (std::isfinite(x)) return x;
  return not_finite_text(x);
}

Json metrics_json(const StepMetrics& m) {
  return {{"loss", number(m.loss)}, {"aux_loss", number(m.aux_loss)}, {"grad_norm", number(m.grad_norm)}};
}

int64_t not_finite(const at::Tensor& x) { return x.numel() - at::isfinite(x).sum().item<int64_t>(); }

void note(Json& list, const std::string& name, const at::Tensor& x) {
  const int64_t count = not_finite(x);
  if (count > 0) list.push_back({{"name", name}, {"count", count}, {"of", x.numel()}});
}

double norm_of(const at::Tensor& x) { return x.to(at::kDouble).norm().item<double>(); }

}  // namespace

std::string metrics_text(const StepMetrics& m) {
  std::ostringstream text;
  const auto show = [&](const char* name, double x) {
    text << name;
    if (std::isfinite(x))
      text << x;
    else
      text << not_finite_text(x);
  };
  show("loss ", m.loss);
  show(", ranking loss ", m.aux_loss);
  show(", gradient norm ", m.grad_norm);
  return text.str();
}

std::string divergence_report(LanguageModel& model, TrainStep& step, const Config& config, const Batch& batch,
                              const DivergedStep& diverged) {
  const auto repeated = step.gradients(batch, training_draws(config, diverged.step));
  const at::NoGradGuard no_grad;

  Json parameters = Json::array(), gradients = Json::array(), activations = Json::array();
  Json parameter_norms, gradient_norms;
  for (const auto& p : model.parameters().all()) {
    note(parameters, p->name, p->value);
    note(gradients, p->name, p->value.grad());
    parameter_norms[p->name] = number(norm_of(p->value));
    gradient_norms[p->name] = number(norm_of(p->value.grad()));
  }
  const auto& output = repeated.output;
  for (size_t i = 0; i < output.mixer_inputs.size(); ++i)
    note(activations, "layers." + std::to_string(i) + ".mixer input", output.mixer_inputs[i]);
  for (size_t i = 0; i < output.branches.size(); ++i) {
    const std::string layer = "layers." + std::to_string(i) + ".branch ";
    for (const auto& [name, x] : {std::pair<const char*, at::Tensor>{"K", output.branches[i].K},
                                  {"Q", output.branches[i].Q},
                                  {"output", output.branches[i].attended}}) {
      if (x.defined()) note(activations, layer + name, x);
    }
  }
  note(activations, "logits", output.logits);

  const Json report = {
      {"update", diverged.step + 1},
      {"batch", diverged.batch},
      {"examples", diverged.examples},
      {"lr", learning_rate(config.train, diverged.step)},
      {"in_training", metrics_json(diverged.metrics)},
      {"repeated_op_by_op", metrics_json(repeated.metrics)},
      {"not_finite", {{"parameters", parameters}, {"gradients", gradients}, {"activations", activations}}},
      {"parameter_norms", parameter_norms},
      {"gradient_norms", gradient_norms}};
  return report.dump(2) + "\n";
}

}  // namespace hax
