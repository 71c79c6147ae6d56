// Five AdamW steps of the golden language models, from the same weights, with the stored draws of each step.
#include "lib/train/train_step.h"
#include "tests/catch.h"
#include "tests/model/golden.h"

namespace hax::test {

TEST_CASE("five AdamW steps meet the official code", "[golden]") {
  for (const auto& name : language_model_files()) {
    CAPTURE(name);
    const GoldenLanguageModel golden(name);
    auto model = golden.model();
    TrainStep step(model, golden.config);
    const auto losses = load_tensor(golden.file, "steps/lm_loss");
    const auto gate_losses = load_tensor(golden.file, "steps/gate_loss");
    const auto accuracies = load_tensor(golden.file, "steps/accuracy");
    for (int64_t s = 0; s < losses.numel(); ++s) {
      CAPTURE(s);
      const auto metrics = step.run(golden.batch, s, golden.draws("steps/" + std::to_string(s) + "."));
      CHECK(metrics.loss == Approx(losses[s].item<double>()).epsilon(6e-6));
      CHECK(metrics.aux_loss == Approx(gate_losses[s].item<double>()).epsilon(2e-5));
      CHECK(metrics.accuracy == Approx(accuracies[s].item<double>()).epsilon(1e-6));
    }
    // Adam amplifies noise where a gradient is near zero: all within 2e-3, 99.5 % within 1e-5.
    int64_t total = 0, near = 0;
    for (const auto& p : model.parameters().all()) {
      if (is_noise(p->name)) continue;
      CAPTURE(p->name);
      const auto difference = (p->value.detach() - load_tensor(golden.file, "final/" + p->name)).abs();
      CHECK(difference.max().item<double>() <= 2e-3);
      total += difference.numel();
      near += (difference <= 1e-5).sum().item<int64_t>();
    }
    CHECK(static_cast<double>(near) >= 0.995 * static_cast<double>(total));
  }
}

}  // namespace hax::test
