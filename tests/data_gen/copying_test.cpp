// Induction heads and selective copying.
#include <cmath>
#include <map>

#include "data_gen/induction_heads.h"
#include "data_gen/selective_copying.h"
#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"
#include "tests/data_gen/tasks.h"

using namespace hax;
using hax::test::drawn;
using hax::test::mentions;
using hax::test::message_of;

TEST_CASE("induction heads: by hand") {
  const InductionHeads task({6, 3});
  Example example;
  example.tokens = {11, 10, 4, 12, 10, 4};
  example.scored = {5};
  example.targets = {12};
  example.slices = {6};
  REQUIRE(task.fault(example) == "");
  CHECK(task.sources(example) == std::vector<int32_t>{3});
  CHECK(task.oracle(example) == std::vector<int32_t>{12});
  CHECK(task.error_kind(example, 0, 10) == 0);
  CHECK(task.error_kind(example, 0, 11) == 1);
  CHECK(task.error_kind(example, 0, 4) == 2);
  CHECK(task.error_kind(example, 0, 13) == 2);
  for (const auto& tokens : std::vector<std::vector<int32_t>>{{11, 10, 4, 12, 4, 4},    // three of them
                                                              {11, 10, 11, 12, 10, 4},  // one
                                                              {11, 10, 12, 12, 4, 4},   // nothing between
                                                              {11, 10, 4, 12, 13, 4},   // no such token
                                                              {11, 10, 4, 12, 10, 10}}) {
    Example bad = example;
    bad.tokens = tokens;
    CHECK(task.fault(bad) != "");
  }
}

TEST_CASE("induction heads: place, answer and the rest are uniform") {
  const InductionHeads task({8, 5});
  std::vector<double> place(6), answer(5), rest(5);
  for (int64_t i = 0; i < 6000; ++i) {
    const Example example = drawn(task, i);
    ++place[static_cast<size_t>(task.sources(example)[0] - 1)];
    ++answer[static_cast<size_t>(example.targets[0] - 10)];
    for (int32_t token : example.tokens) {
      if (token != 4) ++rest[static_cast<size_t>(token - 10)];
    }
  }
  CHECK(test::uniform(place));
  CHECK(test::uniform(answer));
  CHECK(test::uniform(rest));
}

TEST_CASE("selective copying: by hand") {
  const SelectiveCopying task({6, 3, 4, 2});  // data 10 .. 13, noise 14 15
  Example example;
  example.tokens = {14, 12, 15, 10, 12, 14, 4, 12, 10, 12};
  example.scored = {6, 7, 8};
  example.targets = {12, 10, 12};
  example.slices = {3, 6};
  REQUIRE(task.fault(example) == "");
  CHECK(task.sources(example) == std::vector<int32_t>{1, 3, 4});
  CHECK(task.error_kind(example, 0, 10) == 0);
  CHECK(task.error_kind(example, 0, 13) == 1);
  CHECK(task.error_kind(example, 0, 14) == 2);
  for (size_t position = 0; position < example.tokens.size(); ++position) {
    for (int32_t token = 0; token < 18; ++token) {
      Example bad = example;
      bad.tokens[position] = token;
      // One noise token for another makes another example.
      if (token == example.tokens[position] ||
          (example.tokens[position] >= 14 && (token == 14 || token == 15)))
        continue;
      INFO("token " << token << " at " << position);
      REQUIRE(task.fault(bad) != "");
    }
  }
}

TEST_CASE("selective copying: places, data and noise are uniform") {
  const SelectiveCopying task({5, 2, 3, 2});
  std::map<std::vector<int32_t>, double> places;
  std::vector<double> data(3), noise(2);
  for (int64_t i = 0; i < 6000; ++i) {
    const Example example = drawn(task, i);
    ++places[task.sources(example)];
    for (int32_t target : example.targets) ++data[static_cast<size_t>(target - 10)];
    for (int32_t token : example.tokens) {
      if (token >= 13) ++noise[static_cast<size_t>(token - 13)];
    }
  }
  REQUIRE(places.size() == 10);
  std::vector<double> counts;
  for (const auto& [place, count] : places) counts.push_back(count);
  CHECK(test::uniform(counts));
  CHECK(test::uniform(data));
  CHECK(test::uniform(noise));
}

TEST_CASE("induction heads and selective copying: refused parameters") {
  const auto induction = [](const InductionHeadsConfig& config) {
    return message_of<UsageError>([&] { InductionHeads task(config); });
  };
  CHECK(induction({3, 2}).empty());
  CHECK(mentions(induction({2, 2}), "task.induction_heads.length = 2"));
  CHECK(mentions(induction({3, 1}), "task.induction_heads.n_token = 1"));
  const auto copying = [](const SelectiveCopyingConfig& config) {
    return message_of<UsageError>([&] { SelectiveCopying task(config); });
  };
  CHECK(copying({4, 4, 2, 1}).empty());
  CHECK(mentions(copying({4, 5, 2, 1}), "task.selective_copying.n_data = 5 must be <= "));
  CHECK(mentions(copying({4, 4, 2, 0}), "task.selective_copying.n_noise = 0"));
}
