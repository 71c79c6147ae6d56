#include "data_gen/joint_recall.h"

#include <cmath>
#include <map>
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

JointRecallConfig sizes(int64_t c_min, int64_t c_max, int64_t k_min, int64_t k_max) {
  JointRecallConfig config;
  config.n_context_min = c_min;
  config.n_context_max = c_max;
  config.n_key_min = k_min;
  config.n_key_max = k_max;
  return config;
}

Example drawn(const Task& task, int64_t index, int64_t seed = 7) {
  Example example;
  draw_example(task, seed, Split::train, index, 0, example);
  return example;
}

// An example from a padded row and its mask, nothing assumed.
Example from_padded(const JointRecall& task, const std::vector<int32_t>& row,
                    const std::vector<int8_t>& mask) {
  Example example;
  example.tokens = row;
  while (!example.tokens.empty() && example.tokens.back() == JointRecall::kPad) example.tokens.pop_back();
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    example.scored.push_back(static_cast<int32_t>(i));
    example.targets.push_back(row.at(i + 1));
  }
  const JointRecall::Size size = task.size_of(example.tokens);
  example.slices = {static_cast<int32_t>(size.n_context), static_cast<int32_t>(size.n_key)};
  return example;
}

}  // namespace

TEST_CASE("joint recall: spec of the paper's set") {
  const JointRecall task(JointRecallConfig{});
  CHECK(task.spec().padded_tokens == 1058);
  CHECK(task.spec().input_length() == 1057);
  CHECK(task.spec().vocab_size == 100);
  CHECK(task.spec().chance == 1.0 / 16.0);
  CHECK(task.spec().slice_columns == std::vector<std::string>{"n_context", "n_key"});
  CHECK(task.sizes() == 144);
  CHECK(task.size_name(0) == "n_context 5, n_key 5");
  CHECK(task.size_name(1) == "n_context 5, n_key 6");
  CHECK(task.size_name(12) == "n_context 6, n_key 5");
  // Mean real length 464, 110 scored positions an example.
  double tokens = 0.0;
  double scored = 0.0;
  for (int64_t i = 0; i < 144; ++i) {
    const Example example = drawn(task, i);
    tokens += static_cast<double>(example.tokens.size()) / 144.0;
    scored += static_cast<double>(example.scored.size()) / 144.0;
  }
  CHECK(tokens == Approx(464.0).margin(0.5));
  CHECK(scored == Approx(110.25).margin(1e-9));
}

TEST_CASE("joint recall: ids beyond the paper's vocabulary make it larger, smaller ones are refused") {
  JointRecallConfig config = sizes(1, 40, 1, 40);
  CHECK(JointRecall(config).spec().vocab_size == 10 + 16 + 40 + 40);
  config.vocab_size = 105;
  CHECK(mentions(message_of<UsageError>([&] { JointRecall task(config); }), "at least 106"));
  config = sizes(5, 4, 1, 1);
  CHECK(mentions(message_of<UsageError>([&] { JointRecall task(config); }), "n_context_max"));
  config = sizes(0, 4, 1, 1);
  CHECK(mentions(message_of<UsageError>([&] { JointRecall task(config); }), "n_context_min"));
}

TEST_CASE("joint recall: every drawn example is one, and the oracle solves it") {
  const JointRecall task(sizes(1, 6, 1, 7));
  for (int64_t i = 0; i < 420; ++i) {
    const Example example = drawn(task, i);
    INFO("example " << i);
    REQUIRE(task.fault(example) == "");
    REQUIRE(task.oracle(example) == example.targets);
    // The oracle does not look at the answers: it gives the same after they are wiped.
    Example wiped = example;
    for (int32_t position : wiped.scored) wiped.tokens[static_cast<size_t>(position) + 1] = 10;
    REQUIRE(task.oracle(wiped) == example.targets);
  }
}

TEST_CASE("joint recall: sources and kinds of errors, by hand") {
  const JointRecall task(sizes(2, 2, 2, 2));
  // Keys 26 27, contexts 28 29: (c0, k0) 10, (c0, k1) 11, (c1, k0) 12, (c1, k1) 10.
  Example example;
  example.tokens = {1,                   //
                    29, 26, 12, 27, 10,  //
                    28, 27, 11, 26, 10,  //
                    4,                   //
                    28, 26, 10, 27, 11,  //
                    29, 26, 12, 27, 10};
  example.scored = {13, 15, 18, 20};
  example.targets = {10, 11, 12, 10};
  example.slices = {2, 2};
  REQUIRE(task.fault(example) == "");
  CHECK(task.sources(example) == std::vector<int32_t>{10, 8, 3, 5});
  CHECK(task.error_kinds().size() == 4);
  CHECK(task.error_kind(example, 0, 12) == 0);  // (c1, k0)
  CHECK(task.error_kind(example, 0, 11) == 1);  // (c0, k1)
  CHECK(task.error_kind(example, 0, 13) == 2);
  CHECK(task.error_kind(example, 0, 26) == 3);
  CHECK(task.error_kind(example, 0, 99) == 3);
  CHECK(task.error_kind(example, 1, 10) == 0);  // both (c1, k1) and (c0, k0): the right key goes first
  CHECK(task.error_kind(example, 3, 11) == 0);
  CHECK(task.error_kind(example, 3, 12) == 1);
  CHECK_THROWS_AS(task.error_kind(example, 0, 10), std::invalid_argument);
  CHECK_THROWS_AS(task.error_kind(example, 4, 11), std::invalid_argument);
}

TEST_CASE("joint recall: the checker rejects every change of one token") {
  const JointRecall task(sizes(2, 3, 2, 3));
  for (int64_t index = 0; index < task.sizes(); ++index) {
    const Example good = drawn(task, index);
    for (size_t position = 0; position < good.tokens.size(); ++position) {
      for (int32_t token = 0; token < 40; ++token) {
        if (token == good.tokens[position]) continue;
        Example bad = good;
        bad.tokens[position] = token;
        INFO("token " << token << " at " << position);
        REQUIRE(task.fault(bad) != "");
      }
    }
    Example bad = good;
    bad.scored[0] += 1;
    CHECK(task.fault(bad) != "");
    bad = good;
    bad.targets[0] ^= 1;
    CHECK(task.fault(bad) != "");
    bad = good;
    bad.slices[1] += 1;
    CHECK(task.fault(bad) != "");
    bad = good;
    bad.tokens.push_back(JointRecall::kPad);
    CHECK(task.fault(bad) != "");
  }
}

TEST_CASE("joint recall: values, orders of contexts and orders of keys are uniform") {
  const JointRecall task(sizes(3, 3, 3, 3));
  const int n = 12000;
  std::map<std::vector<int32_t>, int> orders[4];  // contexts and first block's keys, in both halves
  std::vector<int> values(16);
  for (int64_t i = 0; i < n; ++i) {
    const Example example = drawn(task, i);
    for (int half = 0; half < 2; ++half) {
      const int start = 1 + 22 * half;
      ++orders[half][{example.tokens[start], example.tokens[start + 7], example.tokens[start + 14]}];
      ++orders[2 + half][{example.tokens[start + 1], example.tokens[start + 3], example.tokens[start + 5]}];
    }
    for (int32_t target : example.targets) ++values[static_cast<size_t>(target - 10)];
  }
  for (const auto& order : orders) {
    REQUIRE(order.size() == 6);
    double chi2 = 0.0;
    for (const auto& [key, count] : order) chi2 += std::pow(count - n / 6.0, 2) / (n / 6.0);
    CHECK(chi2 < 5 + 5 * std::sqrt(10.0));  // 5 degrees of freedom, five standard deviations
  }
  double chi2 = 0.0;
  const double expected = n * 9 / 16.0;
  for (int count : values) chi2 += std::pow(count - expected, 2) / expected;
  CHECK(chi2 < 15 + 5 * std::sqrt(30.0));
}

TEST_CASE("joint recall: the count of distinct examples is exact where it can be enumerated") {
  JointRecallConfig config = sizes(1, 2, 1, 2);
  config.n_value = 2;
  const JointRecall task(config);
  for (int64_t size = 0; size < task.sizes(); ++size) {
    std::set<std::vector<int32_t>> distinct;
    // 2x2 has 2^4 tables and (2! 2!^2)^2 orders: 1024. 40,000 draws miss one with probability 1e-14.
    for (int64_t draw = 0; draw < 40000; ++draw)
      distinct.insert(drawn(task, size + task.sizes() * draw).tokens);
    CHECK(static_cast<double>(distinct.size()) == Approx(std::exp2(task.log2_distinct(size))).epsilon(1e-12));
  }
}

TEST_CASE("joint recall: official examples pass the checker and the oracle", "[golden]") {
  const Safetensors file = Safetensors::open(golden_path("joint_recall.safetensors"));
  const auto number = [&](const char* key) { return std::stoll(file.metadata().at(key)); };
  JointRecallConfig config = sizes(1, number("max_n_context"), 1, number("max_n_key"));
  config.n_value = number("n_value");
  const JointRecall task(config);
  const auto golden_sizes = nlohmann::json::parse(file.metadata().at("sizes (n_context, n_key)"));
  REQUIRE(!golden_sizes.empty());
  for (const auto& size : golden_sizes) {
    const std::string name = std::to_string(size[0].get<int>()) + "x" + std::to_string(size[1].get<int>());
    const TensorInfo& info = file.info(name + "/tokens");
    const auto tokens = file.values<int32_t>(name + "/tokens");
    const auto mask = file.values<int8_t>(name + "/mask");
    const int64_t length = info.shape.at(1);
    REQUIRE(length == task.spec().padded_tokens);
    REQUIRE(info.shape.at(0) > 0);
    // Ours of the same size: same length, same scored positions.
    const JointRecall ours(sizes(size[0], size[0], size[1], size[1]));
    for (int64_t row = 0; row < info.shape.at(0); ++row) {
      const Example example =
          from_padded(task, {tokens.begin() + row * length, tokens.begin() + (row + 1) * length},
                      {mask.begin() + row * length, mask.begin() + (row + 1) * length});
      INFO(name << ", row " << row);
      REQUIRE(task.fault(example) == "");
      REQUIRE(task.oracle(example) == example.targets);
      REQUIRE(example.slices == std::vector<int32_t>{size[0].get<int32_t>(), size[1].get<int32_t>()});
      const Example own = drawn(ours, row);
      REQUIRE(own.tokens.size() == example.tokens.size());
      REQUIRE(own.scored == example.scored);
    }
  }
}
