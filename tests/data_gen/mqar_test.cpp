#include "data_gen/mqar.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "data_gen/generate.h"
#include "lib/base/error.h"
#include "lib/base/safetensors.h"
#include "tests/catch.h"
#include "tests/data_gen/golden.h"
#include "tests/data_gen/scratch.h"

using namespace hax;
using hax::test::golden_path;
using hax::test::mentions;
using hax::test::message_of;

namespace {

MqarConfig config_of(int64_t vocabulary, int64_t length, int64_t pairs, double alpha, bool random) {
  MqarConfig config;
  config.vocab_size = vocabulary;
  config.input_seq_len = {length};
  config.num_kv_pairs = {pairs};
  config.power_a = alpha;
  config.random_non_queries = random;
  return config;
}

Example drawn(const Task& task, int64_t index, int64_t seed = 7) {
  Example example;
  draw_example(task, seed, Split::train, index, 0, example);
  return example;
}

// What the golden statistics count, over our own examples.
struct SlotCounts {
  int64_t n = 0;
  std::vector<std::vector<double>> gap_count;  // (keys, slots)
  double first_before_last = 0.0;
  std::vector<double> key_count, value_count, filler_count;  // (V)

  SlotCounts(const MqarConfig& config, int64_t examples) : n(examples) {
    const Mqar task(config);
    const int64_t context = 2 * config.num_kv_pairs[0];
    const auto vocabulary = static_cast<size_t>(config.vocab_size);
    gap_count.assign(static_cast<size_t>(config.num_kv_pairs[0]),
                     std::vector<double>(static_cast<size_t>((config.input_seq_len[0] - context) / 2)));
    key_count.assign(vocabulary, 0.0);
    value_count.assign(vocabulary, 0.0);
    filler_count.assign(vocabulary, 0.0);
    for (int64_t i = 0; i < n; ++i) {
      const Example example = drawn(task, i, 1234);
      std::vector<int64_t> gap(static_cast<size_t>(config.num_kv_pairs[0]), -1);
      std::vector<bool> scored(example.tokens.size());
      for (int32_t position : example.scored) {
        scored[static_cast<size_t>(position)] = true;
        for (size_t key = 0; key < gap.size(); ++key) {
          if (example.tokens[2 * key] == example.tokens[static_cast<size_t>(position)]) {
            gap[key] = (position - context) / 2;
          }
        }
      }
      for (size_t key = 0; key < gap.size(); ++key) {
        ++gap_count[key].at(static_cast<size_t>(gap[key]));
        ++key_count[static_cast<size_t>(example.tokens[2 * key])];
        ++value_count[static_cast<size_t>(example.tokens[2 * key + 1])];
      }
      for (size_t at = static_cast<size_t>(context); at < example.tokens.size(); ++at) {
        if (!scored[at]) ++filler_count[static_cast<size_t>(example.tokens[at])];
      }
      if (gap.front() < gap.back()) first_before_last += 1.0 / static_cast<double>(n);
    }
  }
};

// Uniform over the tokens [first, last), zero elsewhere: chi-square within five standard deviations. Counts
// of distinct draws vary less than independent ones, which can only lower it.
void check_uniform(const std::vector<double>& counts, size_t first, size_t last) {
  double total = 0.0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (i < first || i >= last) {
      REQUIRE(counts[i] == 0.0);
    }
    total += counts[i];
  }
  const double freedom = static_cast<double>(last - first - 1);
  const double expected = total / static_cast<double>(last - first);
  double chi2 = 0.0;
  for (size_t i = first; i < last; ++i) chi2 += (counts[i] - expected) * (counts[i] - expected) / expected;
  CHECK(chi2 < freedom + 5.0 * std::sqrt(2.0 * freedom));
}

}  // namespace

TEST_CASE("mqar: spec and refused parameters") {
  const Mqar task(MqarConfig{});
  CHECK(task.spec().vocab_size == 8192);
  CHECK(task.spec().input_length() == 64);
  CHECK(task.spec().target_kind == TargetKind::label);
  CHECK(task.spec().slice_columns == std::vector<std::string>{"num_kv_pairs", "input_seq_len"});
  const auto refused = [](const MqarConfig& config) {
    return message_of<UsageError>([&] { Mqar mqar(config); });
  };
  CHECK(mentions(refused(config_of(8192, 63, 8, 0.01, true)), "task.mqar.input_seq_len"));
  CHECK(mentions(refused(config_of(64, 64, 8, 0.01, true)), "task.mqar.vocab_size"));
  CHECK(mentions(refused(config_of(8192, 64, 17, 0.01, true)), "task.mqar.num_kv_pairs"));
  CHECK(mentions(refused(config_of(8192, 64, 0, 0.01, true)), "task.mqar.num_kv_pairs"));
  CHECK(refused(config_of(65, 64, 16, 0.01, true)).empty());
}

TEST_CASE("mqar: every drawn example is one, and the oracle solves it") {
  for (const MqarConfig& config : {config_of(8192, 64, 8, 0.01, true), config_of(8192, 64, 16, 0.01, false),
                                   config_of(20, 16, 4, 0.5, true), config_of(5, 4, 1, 1.0, false),
                                   config_of(256, 128, 32, 2.0, true)}) {
    const Mqar task(config);
    for (int64_t i = 0; i < 300; ++i) {
      const Example example = drawn(task, i);
      INFO(task.parameters() << ", example " << i);
      REQUIRE(task.fault(example) == "");
      REQUIRE(task.oracle(example) == example.targets);
    }
  }
}

TEST_CASE("mqar: sources and kinds of errors, by hand") {
  const Mqar task(config_of(20, 16, 2, 0.01, false));
  Example example;
  example.tokens = {2, 18, 4, 17, 0, 0, 4, 0, 0, 0, 0, 0, 2, 0, 0, 0};
  example.scored = {6, 12};
  example.targets = {17, 18};
  example.slices = {2, 16};
  REQUIRE(task.fault(example) == "");
  CHECK(task.sources(example) == std::vector<int32_t>{3, 1});
  CHECK(task.error_kinds().size() == 3);
  CHECK(task.error_kind(example, 0, 18) == 0);
  CHECK(task.error_kind(example, 0, 19) == 1);
  CHECK(task.error_kind(example, 0, 5) == 2);
  CHECK_THROWS_AS(task.error_kind(example, 1, 18), std::invalid_argument);
}

TEST_CASE("mqar: the checker rejects mutated examples") {
  const Mqar task(config_of(64, 32, 4, 0.5, false));
  const Example good = drawn(task, 0);
  for (size_t position = 0; position < good.tokens.size(); ++position) {
    Example bad = good;
    // Another key or value: in the context it repeats, misses its range, or leaves its query alone.
    bad.tokens[position] =
        position % 2 == 0 && position < 8 ? good.tokens[(position + 2) % 8] : 1 + good.tokens[0] % 30;
    if (bad.tokens[position] == good.tokens[position]) continue;
    INFO("position " << position);
    CHECK(task.fault(bad) != "");
  }
  for (size_t i = 0; i < good.scored.size(); ++i) {
    Example bad = good;
    bad.scored[i] += 1;
    CHECK(task.fault(bad) != "");
    bad = good;
    bad.targets[i] = good.targets[(i + 1) % good.targets.size()];
    CHECK(task.fault(bad) != "");
    bad = good;
    bad.scored.erase(bad.scored.begin() + static_cast<int64_t>(i));
    bad.targets.erase(bad.targets.begin() + static_cast<int64_t>(i));
    CHECK(task.fault(bad) != "");
  }
}

TEST_CASE("mqar: pairs and labels do not depend on the fillers") {
  const Mqar zeros(config_of(512, 64, 8, 0.01, false));
  const Mqar random(config_of(512, 64, 8, 0.01, true));
  for (int64_t i = 0; i < 100; ++i) {
    const Example a = drawn(zeros, i);
    const Example b = drawn(random, i);
    REQUIRE(a.scored == b.scored);
    REQUIRE(a.targets == b.targets);
    for (size_t at = 0; at < a.tokens.size(); ++at) {
      if (a.tokens[at] != 0) REQUIRE(a.tokens[at] == b.tokens[at]);
    }
  }
}

TEST_CASE("mqar: alpha 1 asks uniformly, a small alpha asks early keys early") {
  const int64_t n = 20000;
  const SlotCounts uniform(config_of(256, 32, 4, 1.0, false), n);
  for (const std::vector<double>& gaps : uniform.gap_count) check_uniform(gaps, 0, gaps.size());
  CHECK(uniform.first_before_last == Approx(0.5).margin(5 * 0.5 / std::sqrt(static_cast<double>(n))));
  const SlotCounts early(config_of(256, 32, 4, 0.01, false), n);
  CHECK(early.first_before_last > 0.6);
  // The first key meets the weights untouched: P(gap g) is weight(g) over their sum.
  double sum = 0.0;
  for (int g = 0; g < 12; ++g) sum += std::pow(g + 1.0, 0.01 - 1.0);
  for (int g = 0; g < 12; ++g) {
    const double p = std::pow(g + 1.0, 0.01 - 1.0) / sum;
    CHECK(early.gap_count[0][static_cast<size_t>(g)] / static_cast<double>(n) ==
          Approx(p).margin(5 * std::sqrt(p * (1 - p) / static_cast<double>(n))));
  }
}

TEST_CASE("mqar: the count of distinct examples is exact where it can be enumerated") {
  for (const bool random : {false, true}) {
    const Mqar task(config_of(5, 4, 1, 1.0, random));
    std::set<std::vector<int32_t>> distinct;
    // Without fillers 1 key x 3 values x 1 slot; with them 5 odd fillers beside.
    for (int64_t i = 0; i < 2000; ++i) distinct.insert(drawn(task, i).tokens);
    CHECK(static_cast<double>(distinct.size()) == Approx(std::exp2(task.log2_distinct(0))).epsilon(1e-12));
  }
  // Two slots and fillers that may spell the key again: words are counted once.
  const Mqar task(config_of(7, 6, 1, 1.0, true));
  std::set<std::vector<int32_t>> distinct;
  for (int64_t i = 0; i < 120000; ++i) distinct.insert(drawn(task, i).tokens);
  // 2 keys x 4 values x (7^2 - 6^2) words on the slots x 7^2 odd fillers
  REQUIRE(std::exp2(task.log2_distinct(0)) == Approx(2 * 4 * 13 * 49).epsilon(1e-12));
  CHECK(distinct.size() == 2 * 4 * 13 * 49);
}

TEST_CASE("mqar: a mix has examples of its sizes in the weights' proportions") {
  // Based, figure 2: 100,000 examples of the first size and 20,000 of each other.
  const MqarConfig config = {
      8192, {64, 128, 256, 256, 256}, {4, 8, 16, 32, 64}, {100000, 20000, 20000, 20000, 20000}, 0.01, false};
  const Mqar task(config);
  CHECK(task.spec().padded_tokens == 256);
  CHECK(task.size_name(4) == "num_kv_pairs 64, input_seq_len 256");
  CHECK(task.count_at(0, 180000) == 100000);
  for (int64_t size = 1; size < 5; ++size) CHECK(task.count_at(size, 180000) == 20000);
  for (int64_t i = 0; i < 90; ++i) {
    const Example example = drawn(task, i);
    const auto size = static_cast<size_t>(task.size_at(i));
    REQUIRE(task.fault(example) == "");
    REQUIRE(task.oracle(example) == example.targets);
    REQUIRE(static_cast<int64_t>(example.tokens.size()) == config.input_seq_len[size]);
    REQUIRE(static_cast<int64_t>(example.scored.size()) == config.num_kv_pairs[size]);
    // The same stream draws the same example of a task of this size alone.
    const Mqar alone(config_of(8192, config.input_seq_len[size], config.num_kv_pairs[size], 0.01, false));
    REQUIRE(drawn(alone, i).tokens == example.tokens);
  }
}

TEST_CASE("mqar: parameters of one size are plain numbers, as they always were") {
  CHECK(
      Mqar(MqarConfig{}).parameters() ==
      R"({"input_seq_len":64,"num_kv_pairs":8,"power_a":0.01,"random_non_queries":true,"vocab_size":8192})");
  MqarConfig weighted;
  weighted.weights = {3};
  CHECK(Mqar(weighted).parameters() == Mqar(MqarConfig{}).parameters());
  const auto refused = [](const MqarConfig& config) {
    return message_of<UsageError>([&] { Mqar mqar(config); });
  };
  CHECK(mentions(refused({8192, {}, {}, {}, 0.01, true}), "task.mqar.input_seq_len has 0 elements"));
  CHECK(mentions(refused({8192, {64, 64}, {8}, {}, 0.01, true}), "task.mqar.num_kv_pairs has 1 elements"));
  CHECK(mentions(refused({8192, {64, 64}, {8, 8}, {1}, 0.01, true}), "task.mqar.weights has 1 elements"));
  CHECK(
      mentions(refused({8192, {64, 64}, {8, 17}, {}, 0.01, true}), "4 * task.mqar.num_kv_pairs[1] = 4 * 17"));
  CHECK(mentions(refused({8192, {64, 64}, {8, 8}, {1048576, 1}, 0.01, true}), "use rounder numbers"));
}

TEST_CASE("mqar: official examples pass the checker and the oracle", "[golden]") {
  const Safetensors file = Safetensors::open(golden_path("mqar.safetensors"));
  const auto cases = nlohmann::json::parse(file.metadata().at("cases (V, L, K, alpha, random_non_queries)"));
  REQUIRE(!cases.empty());
  for (const auto& c : cases) {
    const MqarConfig config = config_of(c[0], c[1], c[2], c[3], c[4]);
    const std::string name = "v" + c[0].dump() + "_l" + c[1].dump() + "_k" + c[2].dump() + "_a" +
                             c[3].dump() + (config.random_non_queries ? "_random" : "_zeros");
    const Mqar task(config);
    const auto inputs = file.values<int32_t>(name + "/inputs");
    const auto labels = file.values<int32_t>(name + "/labels");
    const auto rows = file.info(name + "/inputs").shape.at(0);
    REQUIRE(rows > 0);
    REQUIRE(file.info(name + "/inputs").shape.at(1) == config.input_seq_len[0]);
    for (int64_t row = 0; row < rows; ++row) {
      Example example;
      const auto begin = inputs.begin() + row * config.input_seq_len[0];
      example.tokens.assign(begin, begin + config.input_seq_len[0]);
      for (int64_t i = 0; i < config.input_seq_len[0]; ++i) {
        const int32_t label = labels[static_cast<size_t>(row * config.input_seq_len[0] + i)];
        if (label == -100) continue;
        example.scored.push_back(static_cast<int32_t>(i));
        example.targets.push_back(label);
      }
      example.slices = {static_cast<int32_t>(config.num_kv_pairs[0]),
                        static_cast<int32_t>(config.input_seq_len[0])};
      INFO(name << ", row " << row);
      REQUIRE(task.fault(example) == "");
      REQUIRE(task.oracle(example) == example.targets);
    }
  }
}

TEST_CASE("mqar: our statistics are the official generator's", "[golden]") {
  const Safetensors file = Safetensors::open(golden_path("mqar_stats.safetensors"));
  const auto cases = nlohmann::json::parse(file.metadata().at("cases (V, L, K, alpha)"));
  const int64_t n = std::stoll(file.metadata().at("n_examples"));
  const double tolerance = 5.0 * std::sqrt(2.0);  // standard errors, both sides estimated from n examples
  REQUIRE(!cases.empty());
  for (const auto& c : cases) {
    const MqarConfig config = config_of(c[0], c[1], c[2], c[3], true);
    const std::string name = "l" + c[1].dump() + "_k" + c[2].dump() + "_a" + c[3].dump() + "/";
    INFO(name);
    const SlotCounts ours(config, n);
    const auto probability = file.values<float>(name + "gap_prob");
    const auto mean = file.values<float>(name + "gap_mean");
    const auto mean_error = file.values<float>(name + "gap_mean_se");
    const auto slots = static_cast<size_t>(file.info(name + "gap_prob").shape.at(1));
    REQUIRE(ours.gap_count.size() == mean.size());
    REQUIRE(ours.gap_count[0].size() == slots);
    for (size_t key = 0; key < mean.size(); ++key) {
      double own_mean = 0.0;
      for (size_t g = 0; g < slots; ++g) {
        const double own = ours.gap_count[key][g] / static_cast<double>(n);
        const double theirs = probability[key * slots + g];
        // The pooled estimate of the error is never zero where one side saw something.
        const double pooled = (own + theirs) / 2;
        const double error = std::sqrt(pooled * (1 - pooled) / static_cast<double>(n));
        INFO("key " << key << ", gap " << g << ": " << own << " against " << theirs);
        REQUIRE(std::abs(own - theirs) <= tolerance * error);
        own_mean += own * static_cast<double>(g);
      }
      REQUIRE(std::abs(own_mean - mean[key]) <= tolerance * mean_error[key]);
    }
    const auto first = file.values<float>(name + "prob_first_key_asked_before_last");
    const auto first_error = file.values<float>(name + "prob_first_key_asked_before_last_se");
    CHECK(std::abs(ours.first_before_last - first[0]) <= tolerance * first_error[0]);
    const auto half = static_cast<size_t>(config.vocab_size / 2);
    check_uniform(ours.key_count, 1, half);
    check_uniform(ours.value_count, half, 2 * half);
    check_uniform(ours.filler_count, 0, 2 * half);
    // The official counts obey the same rule.
    const auto counted = [&](const char* what) {
      const auto values = file.values<int64_t>(name + what);
      return std::vector<double>(values.begin(), values.end());
    };
    check_uniform(counted("key_count"), 1, half);
    check_uniform(counted("value_count"), half, 2 * half);
    check_uniform(counted("filler_count"), 0, 2 * half);
  }
}
