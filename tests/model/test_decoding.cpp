// Decoding: token by token a model says what the packed forward says, and keeps no key that no later query
// can reach.
#include "lib/model/decoding.h"

#include "lib/config/names.h"
#include "lib/model/key_cache.h"
#include "tests/catch.h"
#include "tests/model/golden.h"

namespace hax::test {
namespace {

constexpr int64_t kVocab = 20, kLength = 70;

// Budgets of 3 to 8 keys against 70 tokens: every pattern forgets, or has to.
ModelConfig small(MixerKind mixer, std::vector<PatternKind> patterns) {
  ModelConfig config;
  config.mixer = {mixer};
  config.d_model = 16;
  config.d_state = 4;
  config.n_heads = 2;
  config.n_groups = 1;
  config.sparse.patterns = std::move(patterns);
  config.sparse.k = 8;
  config.sparse.hash_bits = 2;
  config.sparse.max_length = 40;
  return config;
}

const PhiloxDraws kEvaluation(3, 0, /*training=*/false, /*fixed_eval_hash=*/true, /*fill_with_pad=*/false);

at::Tensor packed_logits(const LanguageModel& model, const at::Tensor& tokens, at::ScalarType type) {
  const at::NoGradGuard no_grad;
  ModelInput input;
  input.tokens = tokens;
  input.scored = at::arange(tokens.size(0), at::kLong);
  input.targets = at::zeros_like(tokens);
  input.layout = layout_of({tokens.size(0)}, 90);
  return model.forward(input, kEvaluation, type).logits;
}

at::Tensor step_logits(const LanguageModel& model, const at::Tensor& tokens, at::ScalarType type) {
  DecodingState state = model.initial_state(kEvaluation, type);
  std::vector<at::Tensor> logits;
  for (int64_t i = 0; i < tokens.size(0); ++i) logits.push_back(model.step(tokens[i].item<int64_t>(), state));
  return at::stack(logits);
}

double difference(const ModelConfig& config, at::ScalarType type, uint32_t seed) {
  const LanguageModel model(config, kVocab, seed, at::kCPU, type);
  const at::Tensor tokens = random_below(kVocab, {kLength}, seed);
  return relative_error(step_logits(model, tokens, type), packed_logits(model, tokens, type));
}

const std::vector<MixerKind> kMixers = {MixerKind::mamba, MixerKind::mamba2};

const std::vector<std::vector<PatternKind>> kBranches = {
    {},
    {PatternKind::full},
    {PatternKind::sliding_window},
    {PatternKind::sink},
    {PatternKind::dilated},
    {PatternKind::lsh},
    {PatternKind::key_selection},
    {PatternKind::lsh, PatternKind::key_selection},
    {PatternKind::sliding_window, PatternKind::sink},
    {PatternKind::sliding_window, PatternKind::dilated},
    {PatternKind::lsh, PatternKind::sliding_window, PatternKind::key_selection, PatternKind::sink}};

StateBytes bytes_after(const ModelConfig& config, int64_t length) {
  const LanguageModel model(config, kVocab, 1, at::kCPU);
  const at::Tensor tokens = random_below(kVocab, {length}, 5).to(at::kInt);
  return model.state_after({tokens.data_ptr<int32_t>(), tokens.data_ptr<int32_t>() + length}, kEvaluation,
                           at::kFloat);
}

}  // namespace

TEST_CASE("step by step is the packed forward, for every mixer, pattern, hash rule and centring") {
  for (const MixerKind mixer : kMixers) {
    for (const auto& patterns : kBranches) {
      for (const Centring centring : {Centring::running_mean, Centring::none}) {
        for (const HashRule rule : {HashRule::sign, HashRule::argmax}) {
          ModelConfig config = small(mixer, patterns);
          config.sparse.centring = centring;
          config.sparse.hash_rule = rule;
          if (rule == HashRule::argmax) config.sparse.hash_bits = 5;
          CAPTURE(name_of(mixer), patterns.size(), patterns.empty() ? "" : name_of(patterns[0]),
                  name_of(centring), name_of(rule));
          CHECK(difference(config, at::kDouble, 1) <= 1e-12);
          CHECK(difference(config, at::kFloat, 2) <= 5e-6);
        }
      }
    }
  }
}

TEST_CASE("mixers in turn, uneven budgets and groups of heads decode too") {
  ModelConfig config = small(MixerKind::mamba2, {PatternKind::lsh, PatternKind::key_selection});
  config.mixer = kMixers;
  config.layers = 3;
  config.n_groups = 2;
  config.sparse.budgets = {2, 9};
  config.sparse.d_qk = 6;
  CHECK(difference(config, at::kDouble, 4) <= 1e-12);
}

TEST_CASE("patterns keep the keys that a later query can reach, and no other") {
  // A layer's floats beside the keys: d_inner * d_state of scan state and 3 inputs of the convolution, which
  // reads d_inner channels (Mamba), or d_inner + 2 d_state (Mamba2).
  for (const auto& [mixer, floats] : {std::pair<MixerKind, int64_t>{MixerKind::mamba, 32 * 4 + 32 * 3},
                                      {MixerKind::mamba2, 32 * 4 + 40 * 3}}) {
    CAPTURE(name_of(mixer));
    const auto bytes = [mixer = mixer](std::vector<PatternKind> patterns, int64_t length) {
      return bytes_after(small(mixer, std::move(patterns)), length);
    };
    // Two layers of fp32 keys (4) and values (32) with their positions.
    constexpr int64_t kKey = 2 * (4 * (4 + 32) + 8);
    const int64_t base = bytes({}, 100).recurrent;
    CHECK(bytes({}, 100).kept_keys == 0);
    CHECK(bytes({}, 1).recurrent == base);
    CHECK(base == 2 * 4 * floats);
    // The next query reaches back over width - 1 keys and its own.
    CHECK(bytes({PatternKind::sliding_window}, 100).kept_keys == 7 * kKey);
    CHECK(bytes({PatternKind::sliding_window}, 4).kept_keys == 4 * kKey);
    CHECK(bytes({PatternKind::sliding_window}, 100).recurrent == base);
    CHECK(bytes({PatternKind::sink}, 100).kept_keys == 8 * kKey);
    // 40 / 8: every fifth.
    CHECK(bytes({PatternKind::dilated}, 100).kept_keys == 20 * kKey);
    CHECK(bytes({PatternKind::full}, 100).kept_keys == 100 * kKey);
    // Budgets of 4: 3 of the window and 4 of the sink; of the first four tokens they hold the same ones.
    CHECK(bytes({PatternKind::sliding_window, PatternKind::sink}, 100).kept_keys == 7 * kKey);
    CHECK(bytes({PatternKind::sliding_window, PatternKind::sink}, 4).kept_keys == 4 * kKey);
    // The top-k, with a score and a position each; one running sum of Q a layer.
    CHECK(bytes({PatternKind::key_selection}, 100).kept_keys == 8 * (kKey + 2 * 16));
    CHECK(bytes({PatternKind::key_selection}, 100).recurrent == base + 2 * 4 * 4);
    // At most 8 keys in each of 4 bins, each in the list of its bin; two running sums a layer.
    const auto lsh = bytes({PatternKind::lsh}, 400);
    CHECK(lsh.recurrent == base + 2 * 2 * 4 * 4);
    CHECK(lsh.kept_keys <= 4 * 8 * (kKey + 2 * 8));
    CHECK(lsh.kept_keys % (kKey / 2 + 8) == 0);
    CHECK(lsh.kept_keys >= 2 * 8 * (kKey / 2 + 8));
    CHECK(bytes({PatternKind::lsh}, 800).kept_keys <= 4 * 8 * (kKey + 2 * 8));
  }
}

TEST_CASE("attention and gated MLPs decode, in turn with a recurrent mixer and alone") {
  for (const int64_t window : {0, 1, 6, 100}) {
    for (const bool rope : {false, true}) {
      for (const Statistics mode : {Statistics::causal, Statistics::paper}) {
        CAPTURE(window, rope, name_of(mode));
        ModelConfig config = small(MixerKind::attention, {});
        if (rope) config.mixer.push_back(MixerKind::mamba2);
        config.mode = mode;
        config.layers = 3;
        config.attention = {4, window, rope, 100.0};
        config.mlp_ratio = 2;
        CHECK(difference(config, at::kDouble, 1) <= 1e-12);
        CHECK(difference(config, at::kFloat, 2) <= 5e-6);
      }
    }
  }
}

TEST_CASE("attention keeps the keys and values that its window can reach") {
  ModelConfig config = small(MixerKind::attention, {});
  const auto bytes = [&](int64_t window, int64_t length) {
    config.attention.window = window;
    return bytes_after(config, length);
  };
  // Two layers of fp32 keys (16) and values (16) with their positions.
  constexpr int64_t kKey = 2 * (4 * (16 + 16) + 8);
  CHECK(bytes(0, 50).kept_keys == 50 * kKey);
  CHECK(bytes(8, 50).kept_keys == 7 * kKey);
  CHECK(bytes(8, 5).kept_keys == 5 * kKey);
  CHECK(bytes(1, 5).kept_keys == 0);
  CHECK(bytes(8, 50).recurrent == 0);
}

TEST_CASE("paper statistics that look ahead cannot decode, and say why") {
  const auto fault = [](std::vector<PatternKind> patterns) {
    ModelConfig config = small(MixerKind::mamba2, std::move(patterns));
    config.mode = Statistics::paper;
    const std::string text = decoding_fault(config);
    const LanguageModel model(config, kVocab, 1, at::kCPU);
    if (text.empty()) {
      const at::Tensor tokens = random_below(kVocab, {30}, 1);
      CHECK(relative_error(step_logits(model, tokens, at::kFloat),
                           packed_logits(model, tokens, at::kFloat)) <= 5e-6);
    } else {
      CHECK_THROWS_AS(model.initial_state(kEvaluation, at::kFloat), std::invalid_argument);
    }
    return text;
  };
  CHECK(fault({PatternKind::lsh}).find("lsh centres and normalises over the whole") != std::string::npos);
  CHECK(fault({PatternKind::sliding_window, PatternKind::key_selection}).find("key_selection") !=
        std::string::npos);
  CHECK(fault({PatternKind::dilated}).find("attends to all positions") != std::string::npos);
  CHECK(fault({}).empty());
  CHECK(fault({PatternKind::sliding_window, PatternKind::dilated}).empty());
  CHECK(fault({PatternKind::full}).empty());
}

TEST_CASE("decoding refuses the draws of training") {
  const LanguageModel model(small(MixerKind::mamba2, {PatternKind::lsh}), kVocab, 1, at::kCPU);
  CHECK_THROWS_AS(model.initial_state(PhiloxDraws(3, 0, true, true, false), at::kFloat),
                  std::invalid_argument);
}

TEST_CASE("a key cache holds each key once, until its last holder lets go") {
  KeyCache cache(2, 3, at::TensorOptions().dtype(at::kDouble));
  const at::Tensor keys = random_normal({40, 2}, 1), values = random_normal({40, 3}, 2);
  for (int64_t i = 0; i < 40; ++i)
    cache.insert(i, keys.narrow(0, i, 1), values.narrow(0, i, 1), i % 2 == 0 ? 2 : 1);
  for (int64_t i = 0; i < 40; ++i) {
    if (i % 3 != 0) cache.release(i);
  }
  std::vector<int64_t> left;
  for (int64_t i = 39; i >= 0; --i) {
    if (i % 3 == 0 || i % 2 == 0) left.push_back(i);
  }
  CHECK(cache.size() == static_cast<int64_t>(left.size()));
  CHECK(cache.bytes() == cache.size() * (5 * 8 + 8));
  const at::Tensor index = at::tensor(left, at::kLong);
  CHECK(cache.select(left).keys.equal(keys.index_select(0, index)));
  CHECK(cache.select(left).values.equal(values.index_select(0, index)));
  CHECK_THROWS_AS(cache.select({1}), std::invalid_argument);
  CHECK_THROWS_AS(cache.release(1), std::invalid_argument);
  CHECK_THROWS_AS(cache.insert(0, keys.narrow(0, 0, 1), values.narrow(0, 0, 1), 1), std::invalid_argument);
}

}  // namespace hax::test
