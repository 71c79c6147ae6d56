// Under `causal`, whole models do not look into the future: whatever comes later, the logits stay.
#include "lib/config/names.h"
#include "tests/catch.h"
#include "tests/model/golden.h"

namespace hax::test {
namespace {

ModelInput model_input(const at::Tensor& tokens, const std::vector<int64_t>& lengths) {
  ModelInput input;
  input.tokens = tokens;
  input.scored = at::arange(tokens.size(0), at::kLong);
  input.targets = at::zeros_like(tokens);
  input.layout = layout_of(lengths, 40);
  return input;
}

at::Tensor all_logits(const Config& config, const at::Tensor& tokens, const std::vector<int64_t>& lengths) {
  const at::NoGradGuard no_grad;
  const LanguageModel model(config.model, 20, 1, at::kCPU);
  // Training draws: the ranking loss takes part, and must not matter to the logits.
  const PhiloxDraws draws(3, 1, true, config.model.mode == Statistics::causal,
                          config.model.mode == Statistics::paper);
  return model.forward(model_input(tokens, lengths), draws, at::kFloat).logits;
}

Config small(MixerKind mixer, std::vector<PatternKind> patterns) {
  Config config;
  config.model.mixer = {mixer};
  config.model.d_model = 16;
  config.model.d_state = 4;
  config.model.n_heads = 2;
  config.model.sparse.patterns = std::move(patterns);
  config.model.sparse.k = 6;
  config.model.sparse.hash_bits = 2;
  config.model.sparse.max_length = 40;
  return config;
}

// With and without window, rotation and MLP, alone and in turn with Mamba.
std::vector<Config> attention_models(Statistics mode) {
  std::vector<Config> configs;
  for (const int64_t window : {0, 6}) {
    for (const bool rope : {false, true}) {
      for (const int64_t mlp_ratio : {0, 2}) {
        Config config = small(MixerKind::attention, {PatternKind::sliding_window});
        config.model.mode = mode;
        if (rope) config.model.mixer = {MixerKind::mamba, MixerKind::attention};
        config.model.mlp_ratio = mlp_ratio;
        config.model.attention = {2, window, rope, 10000.0};
        configs.push_back(config);
      }
    }
  }
  return configs;
}

// Largest change of the logits of sequence 1 before position `changed` when its later tokens all change.
double change_before(const Config& config, int64_t changed) {
  const std::vector<int64_t> lengths = {9, 33, 5};
  const at::Tensor tokens = random_below(20, {47}, 5);
  at::Tensor other = tokens.clone();
  other.slice(0, 9 + changed, 9 + 33).add_(7).remainder_(20);
  const at::Tensor difference =
      (all_logits(config, tokens, lengths) - all_logits(config, other, lengths)).abs();
  // Another sequence never takes notice.
  CHECK(difference.slice(0, 0, 9).max().item<double>() == 0.0);
  CHECK(difference.slice(0, 42).max().item<double>() == 0.0);
  CHECK(difference.slice(0, 9 + changed, 42).max().item<double>() > 1e-4);
  return difference.slice(0, 9, 9 + changed).max().item<double>();
}

const std::vector<std::vector<PatternKind>> kBranches = {{},
                                                         {PatternKind::full},
                                                         {PatternKind::sliding_window},
                                                         {PatternKind::sink},
                                                         {PatternKind::dilated},
                                                         {PatternKind::lsh},
                                                         {PatternKind::key_selection},
                                                         {PatternKind::lsh, PatternKind::key_selection},
                                                         {PatternKind::sliding_window, PatternKind::sink},
                                                         {PatternKind::sliding_window, PatternKind::dilated}};

struct Kind {
  MixerKind mixer;
  std::vector<PatternKind> patterns;
};

// Every mixer with every branch.
std::vector<Kind> all_kinds() {
  std::vector<Kind> kinds;
  for (const MixerKind mixer : {MixerKind::mamba, MixerKind::mamba2}) {
    for (const auto& patterns : kBranches) kinds.push_back({mixer, patterns});
  }
  return kinds;
}

}  // namespace

TEST_CASE("causal models of every pattern ignore later tokens") {
  for (const auto& [mixer, patterns] : all_kinds()) {
    for (const Centring centring : {Centring::running_mean, Centring::none}) {
      for (const HashRule rule : {HashRule::sign, HashRule::argmax}) {
        Config config = small(mixer, patterns);
        config.model.sparse.centring = centring;
        config.model.sparse.hash_rule = rule;
        for (int64_t changed : {1, 16, 17, 32}) {
          CAPTURE(name_of(mixer), patterns.size(), patterns.empty() ? -1 : static_cast<int>(patterns[0]),
                  changed);
          CHECK(change_before(config, changed) <= 1e-6);
        }
      }
    }
  }
}

TEST_CASE("models of attention ignore later tokens and other sequences, in both modes") {
  for (const Statistics mode : {Statistics::causal, Statistics::paper}) {
    for (const auto& config : attention_models(mode)) {
      for (int64_t changed : {1, 16, 17, 32}) {
        CAPTURE(config.model.attention.window, config.model.attention.rope, config.model.mlp_ratio, changed);
        CHECK(change_before(config, changed) <= 1e-6);
      }
      const at::Tensor tokens = random_below(20, {47}, 6);
      const at::Tensor together = all_logits(config, tokens, {9, 33, 5});
      const at::Tensor apart = at::cat({all_logits(config, tokens.slice(0, 0, 9), {9}),
                                        all_logits(config, tokens.slice(0, 9, 42), {33}),
                                        all_logits(config, tokens.slice(0, 42), {5})});
      CHECK(relative_error(together, apart) <= 2e-6);
    }
  }
}

TEST_CASE("a window ends what attention sees") {
  Config config = small(MixerKind::attention, {});
  config.model.layers = 1;
  config.model.attention = {2, 8, true, 10000.0};
  const at::Tensor tokens = random_below(20, {40}, 5);
  at::Tensor other = tokens.clone();
  other[10].add_(7).remainder_(20);
  const at::Tensor change =
      (all_logits(config, tokens, {40}) - all_logits(config, other, {40})).abs().amax(1);
  for (int64_t i = 0; i < 40; ++i) {
    CAPTURE(i);
    CHECK((change[i].item<double>() > 1e-6) == (i >= 10 && i < 18));
  }
}

TEST_CASE("paper models look into the future where a pattern depends on context, and nowhere else") {
  for (const auto& [mixer, patterns] : all_kinds()) {
    Config config = small(mixer, patterns);
    config.model.mode = Statistics::paper;
    const bool leaks = std::any_of(patterns.begin(), patterns.end(), [](PatternKind kind) {
      return kind == PatternKind::lsh || kind == PatternKind::key_selection;
    });
    // The first positions of a dilated pattern have no key, and then attend to the future too.
    const bool empty_rows = patterns == std::vector{PatternKind::dilated};
    CAPTURE(name_of(mixer), patterns.size(), patterns.empty() ? -1 : static_cast<int>(patterns[0]));
    CHECK((change_before(config, 16) > 1e-6) == (leaks || empty_rows));
  }
}

TEST_CASE("packed sequences give what each gives alone") {
  for (const auto& [mixer, patterns] : all_kinds()) {
    const Config config = small(mixer, patterns);
    CAPTURE(name_of(mixer), patterns.size());
    const at::Tensor tokens = random_below(20, {47}, 6);
    const at::Tensor together = all_logits(config, tokens, {9, 33, 5});
    const at::Tensor apart = at::cat({all_logits(config, tokens.slice(0, 0, 9), {9}),
                                      all_logits(config, tokens.slice(0, 9, 42), {33}),
                                      all_logits(config, tokens.slice(0, 42), {5})});
    CHECK(relative_error(together, apart) <= 2e-6);
  }
}

}  // namespace hax::test
