// The checks of `hax check`: sound models pass, planted faults are found and named.
#include <nlohmann/json.hpp>

#include "lib/check/causality.h"
#include "lib/check/check_model.h"
#include "lib/check/consistency.h"
#include "lib/check/gradients.h"
#include "lib/check/initial_loss.h"
#include "lib/check/probe.h"
#include "lib/check/recurrence.h"
#include "lib/config/names.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"
#include "tests/support.h"

namespace hax::test {
namespace {

constexpr int64_t kVocab = 30;

ModelConfig small(std::vector<PatternKind> patterns, MixerKind mixer = MixerKind::mamba2) {
  ModelConfig config;
  config.mixer = {mixer};
  config.d_model = 16;
  config.d_state = 4;
  config.n_heads = 2;
  config.sparse.patterns = std::move(patterns);
  config.sparse.k = 8;
  config.sparse.hash_bits = 2;
  config.sparse.max_length = 40;
  return config;
}

// Three sequences of random tokens, scored in their second halves against other random tokens.
Batch examples() {
  Batch batch;
  batch.padded_length = 90;
  batch.cu_seqlens = batch.cu_scored = {0};
  RandomStream random({.seed = 4});
  for (const int32_t length : {70, 31, 55}) {
    for (int32_t i = 0; i < length; ++i) {
      if (i >= length / 2) {
        batch.scored.push_back(static_cast<int32_t>(batch.tokens.size()));
        batch.targets.push_back(static_cast<int32_t>(random.below(kVocab)));
      }
      batch.tokens.push_back(static_cast<int32_t>(random.below(kVocab)));
    }
    batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
    batch.cu_scored.push_back(static_cast<int32_t>(batch.scored.size()));
  }
  return batch;
}

LanguageModel model_of(const ModelConfig& config) { return {config, kVocab, 1, at::kCPU}; }

at::Tensor& weight(LanguageModel& model, const std::string& name) {
  for (const auto& parameter : model.parameters().all()) {
    if (parameter->name == name) return parameter->value;
  }
  throw std::invalid_argument("no parameter " + name);
}

const std::vector<std::vector<PatternKind>> kBranches = {{},
                                                         {PatternKind::full},
                                                         {PatternKind::sliding_window},
                                                         {PatternKind::sink},
                                                         {PatternKind::dilated},
                                                         {PatternKind::lsh},
                                                         {PatternKind::key_selection},
                                                         {PatternKind::lsh, PatternKind::key_selection},
                                                         {PatternKind::sliding_window, PatternKind::dilated}};

const CheckResult& named(const std::vector<CheckResult>& results, const std::string& name) {
  for (const auto& result : results) {
    if (result.name == name) return result;
  }
  throw std::invalid_argument("no check " + name);
}

std::vector<Leak> leaks_of(const LayerFunction& layer, Statistics mode) {
  const auto layout = layout_of({40, 13}, 60);
  const at::Tensor x = random_normal({53, 16}, 1, at::kFloat), fresh = random_normal({53, 16}, 2, at::kFloat);
  const at::Tensor other = at::where((layout.position > 20).unsqueeze(1), fresh, x);
  return layer_leaks(3, "planted", layer, mode, x, other, 20, layout);
}

// Another matrix each time that it is asked.
class RestlessDraws : public Draws {
 public:
  bool training() const override { return false; }
  at::Tensor hash_matrix(int64_t, int64_t d, int64_t h) const override {
    return random_normal({d, h}, seed_++, at::kFloat);
  }
  at::Tensor sampled_positions(int64_t, int64_t, const ops::PackedLayout&) const override { return {}; }

 private:
  mutable uint32_t seed_ = 1;
};

}  // namespace

TEST_CASE("sound models pass every check, or fail as their mode defines, whatever mixer and patterns") {
  for (const auto [mixer, mode] :
       {std::pair(MixerKind::mamba2, Statistics::causal), std::pair(MixerKind::mamba2, Statistics::paper),
        std::pair(MixerKind::mamba, Statistics::causal)}) {
    for (const auto& patterns : kBranches) {
      ModelConfig config = small(patterns, mixer);
      config.mode = mode;
      const auto results = check_model(model_of(config), examples(), 1, at::kFloat);
      const bool looks_ahead = !decoding_fault(config).empty();
      for (const auto& result : results) {
        CAPTURE(name_of(mixer), name_of(mode), patterns.size(), patterns.empty() ? "" : name_of(patterns[0]),
                result.name, result.detail);
        CHECK(result.verdict != Verdict::fail);
        if (result.name == "causality") {
          CHECK((result.verdict == Verdict::expected_failure) == looks_ahead);
        } else if (result.name == "decoding" || result.name == "padding") {
          CHECK((result.verdict == Verdict::skipped) == looks_ahead);
        } else if (result.name == "gradients" && result.verdict == Verdict::expected_failure) {
          CHECK(mode == Statistics::paper);
          CHECK((patterns == std::vector{PatternKind::dilated} || patterns == std::vector{PatternKind::lsh}));
        } else {
          CHECK(result.verdict == Verdict::pass);
        }
      }
    }
  }
}

TEST_CASE("Samba passes every check") {
  ModelConfig config = small({});
  config.mixer = {MixerKind::mamba, MixerKind::attention};
  config.mlp_ratio = 2;
  config.attention.n_heads = 2;
  config.attention.window = 8;
  for (const auto& result : check_model(model_of(config), examples(), 1, at::kFloat)) {
    CAPTURE(result.name, result.detail);
    CHECK(result.verdict == Verdict::pass);
  }
}

TEST_CASE("the causality check names the layer and the pattern that look ahead") {
  ModelConfig config = small({PatternKind::sliding_window, PatternKind::lsh});
  config.mode = Statistics::paper;
  const std::string detail = check_causality(model_of(config), examples()).detail;
  CHECK(contains(detail, "layer 0: lsh looks ahead"));
  CHECK(contains(detail, "layer 1: lsh looks ahead"));
  CHECK_FALSE(contains(detail, "sliding_window"));
  CHECK(contains(detail, "centres and normalises over the whole padded sequence"));

  // Without a key a query of `paper` attends to everything.
  config.sparse.patterns = {PatternKind::dilated};
  CHECK(contains(check_causality(model_of(config), examples()).detail, "layer 0: queries without a key"));
}

TEST_CASE("planted leaks are found, and blamed on what leaks") {
  // The mean over all rows, the future's too.
  const auto mean = leaks_of(
      [](const at::Tensor& x) {
        MixerOutput out;
        out.hidden = x + 0.01 * x.mean(0, true);
        return out;
      },
      Statistics::causal);
  REQUIRE(mean.size() == 1);
  CHECK(mean[0].layer == 3);
  CHECK(mean[0].part == "planted");
  CHECK_FALSE(mean[0].expected);

  const auto honest = leaks_of(
      [](const at::Tensor& x) {
        MixerOutput out;
        out.hidden = x * 2;
        return out;
      },
      Statistics::causal);
  CHECK(honest.empty());

  // A mixer that centres over the whole sequence although the mode is causal.
  ModelConfig config = small({PatternKind::sliding_window, PatternKind::lsh, PatternKind::key_selection});
  config.mode = Statistics::paper;
  const LanguageModel model = model_of(config);
  const PhiloxDraws draws = probe_draws(config, false);
  const auto layout = layout_of({40, 13}, 60);
  const auto official = [&](const at::Tensor& x) { return model.mixer(0).forward(x, layout, draws); };
  auto leaks = leaks_of(official, Statistics::causal);
  REQUIRE(leaks.size() == 2);
  CHECK(leaks[0].part == "lsh");
  CHECK(leaks[1].part == "key_selection");
  CHECK_FALSE(leaks[0].expected);
  leaks = leaks_of(official, Statistics::paper);
  REQUIRE(leaks.size() == 2);
  CHECK(leaks[0].expected);

  // Bins that change although nothing did.
  config.mode = Statistics::causal;
  const LanguageModel causal = model_of(config);
  const RestlessDraws restless;
  leaks = leaks_of([&](const at::Tensor& x) { return causal.mixer(0).forward(x, layout, restless); },
                   Statistics::causal);
  REQUIRE(leaks.size() == 1);
  CHECK(leaks[0].part == "lsh");

  // A window that is open at both ends.
  const auto window = leaks_of(
      [&](const at::Tensor& x) {
        MixerOutput out = causal.mixer(0).forward(x, layout, draws);
        out.branch.records.resize(1);
        ops::TopkMembership all{at::full({53}, 100, at::kLong)};
        all.evicted[5] = x[50].sum().item<double>() > 0 ? 100 : 6;
        all.evicted[4] = x[39].sum().item<double>() > 0 ? 100 : 6;
        all.evicted[3] = x[30].sum().item<double>() > 0 ? 100 : 6;
        all.evicted[2] = x[29].sum().item<double>() > 0 ? 100 : 6;
        out.branch.records[0].keys.memberships = {all};
        return out;
      },
      Statistics::causal);
  REQUIRE(window.size() == 1);
  CHECK(window[0].part == "sliding_window");
}

TEST_CASE("the gradient check tells right gradients from slightly wrong ones") {
  at::Tensor x = random_normal({50}, 3);
  const Objective objective{[&] { return (x.sin() * x).sum().item<double>(); }, [] { return true; }};
  const at::Tensor right = x.sin() + x * x.cos();
  CHECK(directional_error(x, right, objective, 1).measured);
  CHECK(directional_error(x, right, objective, 1).acceptable());
  CHECK(directional_error(x, right, objective, 1).error <= 1e-6);
  CHECK_FALSE(directional_error(x, right * 1.0001, objective, 1).acceptable());
  at::Tensor one_missing = right.clone();
  one_missing[7] = 0;
  CHECK_FALSE(directional_error(x, one_missing, objective, 1).acceptable());
  CHECK_FALSE(directional_error(x, at::zeros({50}), objective, 1).acceptable());
  CHECK(x.equal(random_normal({50}, 3)));
  const Objective restless{[&] { return x.sum().item<double>(); }, [] { return false; }};
  CHECK_FALSE(directional_error(x, at::ones({50}), restless, 1).measured);
}

TEST_CASE("broken weights fail by name") {
  LanguageModel model = model_of(small({PatternKind::lsh}));
  {
    const at::NoGradGuard no_grad;
    weight(model, "layers.1.mixer.E").zero_();
  }
  auto signal = check_training_signal(model, examples(), at::kFloat);
  CHECK(signal.verdict == Verdict::fail);
  CHECK(signal.detail == "no gradient reaches layers.1.mixer.xx_proj.weight");
  {
    const at::NoGradGuard no_grad;
    weight(model, "layers.0.mixer.D").fill_(std::nan(""));
  }
  signal = check_training_signal(model, examples(), at::kFloat);
  CHECK(signal.verdict == Verdict::fail);
  CHECK(contains(signal.detail, "layers.0.mixer.D"));
  CHECK(check_decoding(model, examples()).verdict == Verdict::fail);
  CHECK(check_causality(model, examples()).verdict == Verdict::fail);
  CHECK(check_packing(model, examples()).verdict == Verdict::fail);
  CHECK(check_padding(model, examples()).verdict == Verdict::fail);
  CHECK(check_gradients(model, examples()).verdict == Verdict::fail);
  CHECK(check_training_arithmetic(model, examples()).verdict == Verdict::fail);
}

TEST_CASE("the initial loss is that of weights which know nothing") {
  ModelConfig config = small({});
  config.d_model = 64;
  config.n_heads = 8;
  CHECK(check_initial_loss(config, kVocab, 1, examples(), at::kCPU).verdict == Verdict::pass);
  // Asked for the token that it reads: the tied head knows it from the start.
  Batch told = examples();
  for (size_t i = 0; i < told.scored.size(); ++i) told.targets[i] = told.tokens[told.scored[i]];
  CHECK(check_initial_loss(config, kVocab, 1, told, at::kCPU).verdict == Verdict::fail);

  // d s^2 / 2 = 0.0128, d s = 1.28, four deviations of 0.16 / sqrt(16).
  config.init_std = 0.02;
  const LossRange range = initial_loss_range(config, 100, 16);
  CHECK(range.low == Approx(std::log(100.0) - 0.16 - 0.02));
  CHECK(range.high == Approx(std::log(99.0 * std::exp(0.0128) + std::exp(1.28)) + 0.16 + 0.02));
}

TEST_CASE("checks without a meaning for the model are skipped, with the reason") {
  ModelConfig config = small({PatternKind::key_selection});
  config.mode = Statistics::paper;
  const auto results = check_model(model_of(config), examples(), 1, at::kFloat);
  CHECK(named(results, "decoding").verdict == Verdict::skipped);
  CHECK(contains(named(results, "decoding").detail, "key_selection"));
}

TEST_CASE("results read as text and as JSON, and one failure is enough") {
  std::vector<CheckResult> results = {{"one", Verdict::pass, "a"},
                                      {"another", Verdict::expected_failure, "b"},
                                      {"third", Verdict::skipped, "c"}};
  CHECK(all_as_expected(results));
  CHECK(as_text(results) ==
        "pass              one      a\n"
        "expected to fail  another  b\n"
        "skipped           third    c\n"
        "3 checks, 1 pass, 1 expected to fail, 1 skipped\n");
  results.push_back({"fourth", Verdict::fail, "d"});
  CHECK_FALSE(all_as_expected(results));
  const auto json = nlohmann::json::parse(as_json(results));
  CHECK(json["ok"] == false);
  CHECK(json["checks"][1]["verdict"] == "expected_failure");
  CHECK(json["checks"][3]["verdict"] == "fail");
  CHECK(json["checks"][3]["detail"] == "d");
}

}  // namespace hax::test
