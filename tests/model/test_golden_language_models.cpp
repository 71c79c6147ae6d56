// Whole Mamba, Mamba2 and Samba models against the official code (paper mode): logits, losses, accuracy and every
// gradient.
#include "lib/ops/cross_entropy.h"
#include "tests/catch.h"
#include "tests/model/golden.h"

namespace hax::test {
namespace {

constexpr double kOutput = 6e-6, kGradient = 3e-5, kMlpGradient = 2e-5;

}  // namespace

TEST_CASE("language models meet the official code", "[golden]") {
  for (const auto& name : language_model_files()) {
    CAPTURE(name);
    const GoldenLanguageModel golden(name);
    auto model = golden.model();
    const auto input = to_device(golden.batch, at::kCPU);
    const auto draws = golden.draws("");
    const auto out = model.forward(input, draws, at::kFloat);
    CHECK(relative_error(out.logits, golden.at_scored(load_tensor(golden.file, "logits"))) <= kOutput);

    const auto result = ops::cross_entropy(out.logits, input.targets);
    CHECK(relative_error(result.loss, load_tensor(golden.file, "lm_loss")) <= kOutput);
    at::Tensor total = result.loss;
    REQUIRE(out.aux_loss.defined() == golden.file.contains("gate_loss"));
    if (out.aux_loss.defined()) {
      CHECK(relative_error(out.aux_loss, load_tensor(golden.file, "gate_loss")) <= kOutput);
      total = total + 0.1 * out.aux_loss;
    }
    total.backward();
    for (const auto& p : model.parameters().all()) {
      if (is_noise(p->name)) continue;
      CAPTURE(p->name);
      const bool mlp = p->name.find("dx_proj") != std::string::npos;
      CHECK(relative_error(p->value.grad(), load_tensor(golden.file, "grads/grad." + p->name)) <=
            (mlp ? kMlpGradient : kGradient));
    }
  }
}

}  // namespace hax::test
