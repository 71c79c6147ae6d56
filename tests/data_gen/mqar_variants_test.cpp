// Compositional and forgetting MQAR.
#include <cmath>
#include <map>
#include <set>

#include "data_gen/mqar.h"
#include "data_gen/mqar_compositional.h"
#include "data_gen/mqar_forgetting.h"
#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"
#include "tests/data_gen/tasks.h"

using namespace hax;
using hax::test::drawn;
using hax::test::mentions;
using hax::test::message_of;

TEST_CASE("compositional mqar: neither token of a key tells the value") {
  const MqarCompositional task({150, 62, 9, 0.01, false});
  std::vector<double> order(9);  // of the second key's tokens against the first key's: equal or not
  for (int64_t i = 0; i < 300; ++i) {
    const Example example = drawn(task, i);
    REQUIRE(task.fault(example) == "");
    std::map<int32_t, std::set<int32_t>> by_first, by_second;
    std::set<int32_t> values;
    for (size_t at = 0; at < 27; at += 3) {
      by_first[example.tokens[at]].insert(example.tokens[at + 2]);
      by_second[example.tokens[at + 1]].insert(example.tokens[at + 2]);
      values.insert(example.tokens[at + 2]);
    }
    REQUIRE(values.size() == 9);
    REQUIRE(by_first.size() == 3);
    REQUIRE(by_second.size() == 3);
    for (const auto& side : {by_first, by_second}) {
      for (const auto& [token, those] : side) REQUIRE(those.size() == 3);
    }
    // Slots of three tokens: two are asked, the second is scored, the third is left.
    for (int32_t position : example.scored) {
      REQUIRE((position - 27) % 3 == 1);
      REQUIRE(example.tokens[static_cast<size_t>(position) + 1] == 0);
    }
  }
}

TEST_CASE("compositional mqar: sources and kinds of errors, by hand") {
  const MqarCompositional task(
      {30, 24, 4, 1.0, false});  // first tokens 1 .. 9, second 10 .. 19, values 20 ..
  Example example;
  example.tokens = {3, 11, 21, 4, 11, 22, 3, 12, 23, 4, 12, 24, 4, 11, 0, 3, 12, 0, 3, 11, 0, 4, 12, 0};
  example.scored = {13, 16, 19, 22};
  example.targets = {22, 23, 21, 24};
  example.slices = {4, 24};
  REQUIRE(task.fault(example) == "");
  CHECK(task.sources(example) == std::vector<int32_t>{5, 8, 2, 11});
  CHECK(task.error_kind(example, 0, 21) == 0);  // (3, 11) shares the second token
  CHECK(task.error_kind(example, 0, 24) == 0);
  CHECK(task.error_kind(example, 0, 23) == 1);
  CHECK(task.error_kind(example, 0, 25) == 2);
  CHECK(task.error_kind(example, 0, 11) == 3);
}

TEST_CASE("forgetting mqar: the value given last counts, by hand") {
  const MqarForgetting task({40, 24, 4, 2, 1.0, false});
  Example example;
  example.tokens = {1, 25, 2, 23, 3, 27, 4, 22, 1, 29, 3, 25, 4, 0, 0, 0, 1, 0, 2, 0, 3, 0, 0, 0};
  example.scored = {12, 16, 18, 20};
  example.targets = {22, 29, 23, 25};
  example.slices = {4, 2, 24};
  REQUIRE(task.fault(example) == "");
  CHECK(task.sources(example) == std::vector<int32_t>{7, 9, 3, 11});
  CHECK(task.error_kind(example, 1, 25) == 0);  // its old value goes before key 3's new one
  CHECK(task.error_kind(example, 1, 27) == 1);
  CHECK(task.error_kind(example, 1, 30) == 2);
  CHECK(task.error_kind(example, 1, 3) == 3);
  Example bad = example;
  bad.targets[1] = 25;
  CHECK(task.fault(bad) != "");
  bad = example;
  bad.tokens[9] = 25;  // not a new value
  bad.targets[1] = 25;
  CHECK(task.fault(bad) != "");
  bad = example;
  bad.tokens[10] = 1;  // the same key twice
  CHECK(task.fault(bad) != "");
}

TEST_CASE("forgetting mqar: keys to update and their values are uniform; without updates it is mqar") {
  const MqarForgetting task({20, 18, 4, 1, 1.0, false});
  std::vector<double> key(4), value(9);
  for (int64_t i = 0; i < 6000; ++i) {
    const std::vector<int32_t> tokens = drawn(task, i).tokens;
    for (size_t j = 0; j < 4; ++j) {
      if (tokens[2 * j] != tokens[8]) continue;
      ++key[j];
      const int32_t old = tokens[2 * j + 1];
      REQUIRE(tokens[9] != old);
      ++value[static_cast<size_t>(tokens[9] - 10 - (tokens[9] > old ? 1 : 0))];
    }
  }
  CHECK(test::uniform(key));
  CHECK(test::uniform(value));

  const MqarForgetting none({256, 64, 8, 0, 0.1, true});
  const Mqar plain({256, {64}, {8}, {}, 0.1, true});
  for (int64_t i = 0; i < 50; ++i) {
    REQUIRE(drawn(none, i).tokens == drawn(plain, i).tokens);
    REQUIRE(drawn(none, i).targets == drawn(plain, i).targets);
  }
  CHECK(none.log2_distinct(0) == Approx(plain.log2_distinct(0)).epsilon(1e-12));
}

TEST_CASE("mqar variants: distinct examples are counted exactly, fillers included") {
  // 1 key of 1 x 2 tokens, 3 values, 1 slot of 3 of which the last token is free.
  const MqarCompositional compositional({7, 6, 1, 1.0, true});
  std::set<std::vector<int32_t>> seen;
  for (int64_t i = 0; i < 3000; ++i) seen.insert(drawn(compositional, i).tokens);
  CHECK(seen.size() == 1 * 2 * 3 * 7);
  CHECK(std::exp2(compositional.log2_distinct(0)) == Approx(42).epsilon(1e-12));
  // 2 keys, 4 values x 3 new ones, 1 slot with a free token behind it.
  const MqarForgetting forgetting({7, 6, 1, 1, 1.0, true});
  seen.clear();
  for (int64_t i = 0; i < 8000; ++i) seen.insert(drawn(forgetting, i).tokens);
  CHECK(seen.size() == 2 * 4 * 3 * 7);
  CHECK(std::exp2(forgetting.log2_distinct(0)) == Approx(168).epsilon(1e-12));
}

TEST_CASE("mqar variants: refused parameters") {
  const auto compositional = [](const MqarCompositionalConfig& config) {
    return message_of<UsageError>([&] { MqarCompositional task(config); });
  };
  CHECK(compositional({150, 30, 4, 0.01, true}).empty());
  CHECK(mentions(compositional({150, 30, 5, 0.01, true}), "must be a square"));
  CHECK(mentions(compositional({150, 22, 4, 0.01, true}), "6 * task.mqar_compositional.num_kv_pairs"));
  CHECK(mentions(compositional({150, 31, 4, 0.01, true}), "must be even"));
  CHECK(mentions(compositional({30, 30, 4, 0.01, true}), "task.mqar_compositional.vocab_size = 30"));
  CHECK(mentions(compositional({27, 26, 1, 1e300, true}), "power_a"));
  const auto forgetting = [](const MqarForgettingConfig& config) {
    return message_of<UsageError>([&] { MqarForgetting task(config); });
  };
  CHECK(forgetting({100, 24, 4, 4, 0.01, true}).empty());
  CHECK(mentions(forgetting({100, 24, 4, 5, 0.01, true}), "num_updates = 5 must be <="));
  CHECK(mentions(forgetting({100, 22, 4, 4, 0.01, true}), "= 24 must be <="));
}
