// Five steps of the golden language models as the official code trains: weights, gradients and Adam's state
// in bf16, `paper` statistics, the stored draws of each step.
#include <cmath>

#include "lib/train/train_step.h"
#include "tests/catch.h"
#include "tests/model/golden.h"

namespace hax::test {

TEST_CASE("pure bf16 training follows the official code", "[golden]") {
  for (const auto& name : language_model_files()) {
    CAPTURE(name);
    GoldenLanguageModel golden(name);
    golden.config.train.precision = Precision::pure_bf16;
    auto model = golden.model(at::kBFloat16);
    TrainStep step(model, golden.config);
    const auto losses = load_tensor(golden.file, "bf16/lm_loss");
    const auto spread = load_tensor(golden.file, "bf16/loss_spread");
    const auto gate_losses = load_tensor(golden.file, "bf16/gate_loss");
    const auto accuracies = load_tensor(golden.file, "bf16/accuracy");
    for (int64_t s = 0; s < losses.numel(); ++s) {
      CAPTURE(s);
      const auto metrics = step.run(golden.batch, s, golden.draws("bf16/" + std::to_string(s) + "."));
      const double wanted = losses[s].item<double>();
      // Step 0 has weights in common; later ones differ by what rounding did before.
      const double tolerance = std::max(2.0 * spread[s].item<double>(), 0.0625);
      CHECK(std::abs(metrics.loss - wanted) <= tolerance);
      CHECK(metrics.loss == static_cast<double>(static_cast<float>(at::BFloat16(metrics.loss))));
      CHECK(metrics.aux_loss == Approx(gate_losses[s].item<double>()).epsilon(0.01));
      CHECK(metrics.accuracy == Approx(accuracies[s].item<double>()).margin(0.08));
    }
    // Weights that had not moved, or had moved elsewhere, would be as far from the recorded ones as those are
    // from the start.
    double apart = 0.0, moved = 0.0;
    for (const auto& p : model.parameters().all()) {
      if (is_noise(p->name)) continue;
      const auto final_value = load_tensor(golden.file, "bf16/final/" + p->name).to(at::kDouble);
      apart += (p->value.detach().to(at::kDouble) - final_value).abs().sum().item<double>();
      moved += (load_tensor(golden.file, "weights/" + p->name).to(at::kDouble) - final_value)
                   .abs()
                   .sum()
                   .item<double>();
    }
    CHECK(apart <= 0.3 * moved);
  }
}

}  // namespace hax::test
