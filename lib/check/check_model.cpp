#include "lib/check/check_model.h"

#include "lib/check/causality.h"
#include "lib/check/consistency.h"
#include "lib/check/gradients.h"
#include "lib/check/initial_loss.h"
#include "lib/check/recurrence.h"

namespace hax {

std::vector<CheckResult> check_model(const LanguageModel& model, const Batch& batch, uint64_t seed,
                                     at::ScalarType compute,
                                     const std::function<void(const CheckResult&)>& done) {
  const bool trained = !model.config().has_mixer(MixerKind::constructive);
  const auto if_trained = [&](const char* name, const std::function<CheckResult()>& check) {
    return trained ? check() : CheckResult{name, Verdict::skipped, "the weights are set, not trained"};
  };
  const std::vector<std::function<CheckResult()>> checks = {
      [&] { return check_causality(model, batch); },
      [&] { return check_decoding(model, batch); },
      [&] { return check_scans(model.config(), model.device()); },
      [&] { return if_trained("gradients", [&] { return check_gradients(model, batch); }); },
      [&] {
        return if_trained("fp32 against fp64", [&] { return check_training_arithmetic(model, batch); });
      },
      [&] {
        return if_trained("training signal", [&] { return check_training_signal(model, batch, compute); });
      },
      [&] {
        return if_trained("initial loss", [&] {
          return check_initial_loss(model.config(), model.vocab_size(), seed, batch, model.device());
        });
      },
      [&] { return check_determinism(model, batch, compute); },
      [&] { return check_packing(model, batch); },
      [&] { return check_padding(model, batch); }};
  std::vector<CheckResult> results;
  for (const auto& check : checks) {
    results.push_back(check());
    if (done) done(results.back());
  }
  return results;
}

}  // namespace hax
