// The constructive solution answers every question of every table: accuracy 1, not about 1 (spec section 5).
#include "lib/model/constructive.h"

#include <cstdio>
#include <sstream>

#include "lib/base/error.h"
#include "lib/model/checkpoint.h"
#include "tests/catch.h"
#include "tests/model/recall_table.h"
#include "tests/support.h"

namespace hax::test {
namespace {

Config constructive(int64_t hash_bits, int64_t k) {
  Config config;
  config.model.mixer = {MixerKind::constructive};
  config.model.sparse.patterns = {PatternKind::lsh};
  config.model.sparse.centring = Centring::none;
  config.model.sparse.hash_bits = hash_bits;
  config.model.sparse.k = k;
  return config;
}

struct Score {
  int64_t right = 0, asked = 0;
};

Score score(const Config& config, const RecallTable& table, uint32_t examples,
            at::ScalarType compute = at::kFloat) {
  const at::InferenceMode inference;
  const LanguageModel model(config.model, table.spec(), 1, at::kCPU);
  const EvaluationDraws draws(config, at::kCPU);
  Batch batch = empty_batch(table.spec());
  for (uint32_t i = 0; i < examples; ++i) append(table.spec(), table.example(i), batch);
  const ModelInput input = to_device(batch, at::kCPU);
  const at::Tensor answers = model.forward(input, draws, compute).logits.argmax(1);
  return {(answers == input.targets).sum().item<int64_t>(), input.targets.numel()};
}

struct Case {
  std::vector<int64_t> sizes;
  int64_t n_value, hash_bits, k;
  uint32_t examples;
};

}  // namespace

TEST_CASE("the constructive solution answers every question, for one, two and three levels") {
  // hash_bits = log2(entries) + 4, k = 64: docs/theory.md.
  const std::vector<Case> cases = {
      {{1}, 2, 4, 64, 20},         {{5}, 16, 7, 64, 100},       {{100}, 16, 11, 64, 20},
      {{1000}, 500, 14, 64, 4},    {{5, 5}, 16, 9, 64, 100},    {{7, 11}, 16, 11, 64, 100},
      {{16, 16}, 16, 12, 64, 50},  {{16, 5}, 3, 11, 64, 50},    {{64, 64}, 16, 16, 64, 4},
      {{3, 4, 5}, 16, 10, 64, 50}, {{16, 16, 16}, 7, 16, 64, 4}};
  for (const Case& c : cases) {
    const RecallTable table(c.sizes, c.n_value);
    for (int64_t seed : {1, 2}) {
      Config config = constructive(c.hash_bits, c.k);
      config.train.seed = seed;  // of the hash matrix
      const Score result = score(config, table, c.examples);
      CAPTURE(c.sizes.size(), c.sizes[0], c.hash_bits, c.k, seed);
      CHECK(result.asked == table.entries() * c.examples);
      CHECK(result.right == result.asked);
    }
  }
}

TEST_CASE("the constructive solution is exact in bf16 and with the argmax rule too") {
  const RecallTable table({7, 11}, 16);
  Config config = constructive(11, 64);
  Score result = score(config, table, 50, at::kBFloat16);
  CHECK(result.right == result.asked);
  config.model.sparse.hash_rule = HashRule::argmax;
  config.model.sparse.hash_bits = 256;
  result = score(config, table, 50);
  CHECK(result.right == result.asked);
}

TEST_CASE("too few keys for the bins lose answers") {
  const RecallTable table({16, 16}, 16);
  const auto accuracy = [&](int64_t hash_bits, int64_t k) {
    const Score result = score(constructive(hash_bits, k), table, 10);
    return static_cast<double>(result.right) / static_cast<double>(result.asked);
  };
  CHECK(accuracy(2, 64) < 0.9);   // bins too full
  CHECK(accuracy(12, 2) < 0.9);   // k too small
  CHECK(accuracy(2, 1100) == 1);  // every key of a bin within reach
}

TEST_CASE("a lookup that does not know its level, or a table told with a token missing, is wrong") {
  // Names of contexts taken for keys: the model sees a table of 1 level whose keys repeat.
  RecallTable table({8, 8}, 16);
  DataSpec blind = table.spec();
  blind.slots.erase(blind.slots.begin());
  const Config config = constructive(10, 64);
  const at::InferenceMode inference;
  const LanguageModel model(config.model, blind, 1, at::kCPU);
  Batch batch = empty_batch(blind);
  for (uint32_t i = 0; i < 10; ++i) append(blind, table.example(i), batch);
  const ModelInput input = to_device(batch, at::kCPU);
  const auto answers = model.forward(input, EvaluationDraws(config, at::kCPU), at::kFloat).logits.argmax(1);
  CHECK((answers == input.targets).to(at::kFloat).mean().item<double>() < 0.5);
}

TEST_CASE("the recurrent state grows with the logarithm of the table") {
  // Slots of 3 b features a level and b of values, b = ceil(log2 size), and is_value; in fp32.
  const auto recurrent = [](std::vector<int64_t> sizes) {
    const RecallTable table(std::move(sizes), 16);
    const Config config = constructive(4, 8);
    const LanguageModel model(config.model, table.spec(), 1, at::kCPU);
    const Example e = table.example(0);
    const StateBytes bytes = model.state_after({e.tokens.begin(), e.tokens.begin() + 40},
                                               EvaluationDraws(config, at::kCPU), at::kFloat);
    CHECK(bytes.kept_keys > 0);
    return bytes.recurrent;
  };
  CHECK(recurrent({4, 4}) == 4 * (2 * 3 * 2 + 4 + 1));
  CHECK(recurrent({5, 5}) == 4 * (2 * 3 * 3 + 4 + 1));
  CHECK(recurrent({16, 16}) == 4 * (2 * 3 * 4 + 4 + 1));
  CHECK(recurrent({64, 64}) == 4 * (2 * 3 * 6 + 4 + 1));
  CHECK(recurrent({4, 4, 4}) == 4 * (3 * 3 * 2 + 4 + 1));
}

// Rows "| 16 x 16 | n | tokens | accuracy | recurrent | keys | bound |" of the table of measured state.
TEST_CASE("docs/theory.md tells the recurrent state and the bound of the model as it is") {
  std::istringstream lines(slurp(HAX_SOURCE_DIR "/docs/theory.md"));
  std::string line;
  int rows = 0;
  while (std::getline(lines, line)) {
    int size = 0, again = 0;
    long entries = 0, tokens = 0, recurrent = 0, keys = 0, bound = 0;
    double accuracy = 0.0;
    if (std::sscanf(line.c_str(), "| %d x %d | %ld | %ld | %lf | %ld | %ld | %ld |", &size, &again, &entries,
                    &tokens, &accuracy, &recurrent, &keys, &bound) != 8)
      continue;
    ++rows;
    CAPTURE(line);
    const RecallTable table({size, again}, 16);
    CHECK(entries == table.entries());
    CHECK(tokens == table.spec().padded_tokens - 1);
    CHECK(accuracy == 100.0);
    CHECK(bound == entries * 4 / 8);
    const Config config = constructive(16, 64);
    const LanguageModel model(config.model, table.spec(), 1, at::kCPU);
    const StateBytes bytes = model.initial_state(EvaluationDraws(config, at::kCPU), at::kFloat).bytes();
    CHECK(recurrent == bytes.recurrent);
  }
  CHECK(rows == 5);
}

TEST_CASE("the constructive solution decodes step by step as it runs packed") {
  const RecallTable table({5, 6}, 16);
  for (int64_t k : {3, 64}) {  // also where keys are forgotten and answers wrong
    const Config config = constructive(5, k);
    const at::InferenceMode inference;
    const LanguageModel model(config.model, table.spec(), 1, at::kCPU);
    const EvaluationDraws draws(config, at::kCPU);
    Batch batch = empty_batch(table.spec());
    Example e = table.example(0);
    append(table.spec(), e, batch);
    ModelInput input = to_device(batch, at::kCPU);
    input.scored = at::arange(input.tokens.numel());
    const at::Tensor packed = model.forward(input, draws, at::kFloat).logits;
    DecodingState state = model.initial_state(draws, at::kFloat);
    double largest = 0.0;
    for (int64_t i = 0; i < input.tokens.numel(); ++i) {
      const at::Tensor stepped = model.step(batch.tokens[i], state);
      largest = std::max(largest, (stepped - packed[i]).abs().max().item<double>());
    }
    CHECK(largest <= 1e-5);
  }
}

TEST_CASE("codes are distinct, without zeros, and empty for tokens that say nothing") {
  const RecallTable table({5, 70}, 16);
  const at::Tensor E = TokenCodes(table.spec(), 64, at::kCPU).embedding();
  CHECK(E.size(0) == table.spec().vocab_size);
  CHECK(E.slice(0, 0, 2).abs().max().item<float>() == 0.0f);
  const int64_t key_begin = 9, value_begin = 9 + 21, end = value_begin + 4;
  const auto check = [&](const TokenSlot& slot, int64_t begin, int64_t stop) {
    const at::Tensor codes = E.slice(0, slot.first, slot.first + slot.count);
    CHECK(codes.slice(1, begin, stop).abs().min().item<float>() == 1.0f);
    CHECK(codes.abs().sum(1).eq(stop - begin + 1).all().item<bool>());  // nothing but the slot and is_value
    CHECK(codes.select(1, end).eq(slot.is_value ? 1 : -1).all().item<bool>());
    CHECK(at::mm(codes, codes.t()).fill_diagonal_(0).max().item<float>() <= stop - begin - 1);
  };
  check(table.spec().slots[0], 0, key_begin);
  check(table.spec().slots[1], key_begin, value_begin);
  check(table.spec().slots[2], value_begin, end);
}

TEST_CASE("data without slots and a stream that is too narrow are refused") {
  const Config config = constructive(4, 8);
  DataSpec spec = RecallTable({5, 5}, 16).spec();
  const auto refusal = [&](int64_t d_model) {
    ModelConfig model = config.model;
    model.d_model = d_model;
    return message_of<UsageError>([&] { LanguageModel(model, spec, 1, at::kCPU); });
  };
  CHECK(refusal(23).empty());
  CHECK(contains(refusal(22), "model.d_model = 22"));
  CHECK(contains(refusal(22), "at least 23"));
  std::swap(spec.slots[1], spec.slots[2]);
  CHECK(contains(refusal(64), "which token ids are keys and values"));
  spec.slots.clear();
  CHECK(contains(refusal(64), "which token ids are keys and values"));
}

TEST_CASE("a checkpoint keeps the constructive solution and its slots") {
  const TemporaryFolder folder;
  const RecallTable table({5, 5}, 16);
  Config config = constructive(9, 64);
  config.train.steps = 0;
  const LanguageModel model(config.model, table.spec(), 1, at::kCPU);
  CheckpointInfo info;
  info.config = config;
  info.data = table.spec();
  write_checkpoint(folder.file("model"), model, info, nullptr);
  const auto loaded = read_checkpoint(folder.file("model"), at::kCPU);
  CHECK((loaded.info.data.slots == table.spec().slots));
  CHECK(at::equal(loaded.model->parameters().flat(), model.parameters().flat()));
  CHECK(loaded.draws->stored().at(1).sizes() == at::IntArrayRef({64, 9}));
}

}  // namespace hax::test
