#include "data_gen/multilevel_joint_recall.h"

#include <cmath>
#include <map>

#include "data_gen/joint_recall.h"
#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"
#include "tests/data_gen/tasks.h"

using namespace hax;
using hax::test::drawn;
using hax::test::mentions;
using hax::test::message_of;

TEST_CASE("multi-level joint recall: two levels are joint recall, example for example") {
  for (const auto& [contexts, keys] : {std::pair<int64_t, int64_t>{4, 4}, {1, 5}, {6, 1}, {5, 3}}) {
    JointRecallConfig plain;
    plain.n_context_min = plain.n_context_max = contexts;
    plain.n_key_min = plain.n_key_max = keys;
    const JointRecall two(plain);
    const MultilevelJointRecall nested({{contexts, keys}, 16, 0});
    CHECK(nested.spec().vocab_size == two.spec().vocab_size);
    CHECK(nested.spec().padded_tokens == two.spec().padded_tokens);
    CHECK(nested.spec().chance == two.spec().chance);
    CHECK(nested.log2_distinct(0) == Approx(two.log2_distinct(0)).epsilon(1e-12));
    for (int64_t i = 0; i < 100; ++i) {
      const Example a = drawn(two, i);
      const Example b = drawn(nested, i);
      REQUIRE(a.tokens == b.tokens);
      REQUIRE(a.scored == b.scored);
      REQUIRE(a.targets == b.targets);
      REQUIRE(a.slices == b.slices);
      REQUIRE(two.fault(b) == "");
      REQUIRE(nested.fault(a) == "");
      REQUIRE(two.roles(a) == nested.roles(a));
      REQUIRE(two.sources(a) == nested.sources(a));
      for (int32_t token = 0; token < 60; ++token) {
        const size_t j = static_cast<size_t>(i) % a.targets.size();
        if (token != a.targets[j]) REQUIRE(two.error_kind(a, j, token) == nested.error_kind(a, j, token));
      }
    }
  }
}

TEST_CASE("multi-level joint recall: one level is associative recall, by hand") {
  const MultilevelJointRecall task({{3}, 4, 0});
  // Values 10 .. 13, keys 14 15 16.
  Example example;
  example.tokens = {1, 15, 11, 14, 10, 16, 11, 4, 14, 10, 16, 11, 15, 11};
  example.scored = {8, 10, 12};
  example.targets = {10, 11, 11};
  example.slices = {3};
  REQUIRE(task.fault(example) == "");
  CHECK(task.sources(example) == std::vector<int32_t>{4, 6, 2});
  CHECK(task.error_kind(example, 0, 11) == 1);
  CHECK(task.error_kind(example, 0, 12) == 2);
  CHECK(task.error_kind(example, 0, 14) == 3);
  CHECK(task.spec().padded_tokens == 14);
}

TEST_CASE("multi-level joint recall: every change of one token is found, at three levels") {
  const MultilevelJointRecall task({{2, 3, 2}, 5, 0});
  CHECK(task.spec().padded_tokens == 2 * (2 * (1 + 3 * (1 + 2 * 2))) + 2);
  const Example good = drawn(task, 0);
  REQUIRE(task.fault(good) == "");
  CHECK(good.scored.size() == 12);
  for (size_t position = 0; position < good.tokens.size(); ++position) {
    for (int32_t token = 0; token < 24; ++token) {
      if (token == good.tokens[position]) continue;
      Example bad = good;
      bad.tokens[position] = token;
      INFO("token " << token << " at " << position);
      REQUIRE(task.fault(bad) != "");
    }
  }
}

TEST_CASE("multi-level joint recall: orders are uniform at every level, and fresh in the second half") {
  const MultilevelJointRecall task({{2, 3, 2}, 4, 0});
  // First symbols of the levels: ids 14.. keys, 16.. level 2, 19.. level 1.
  std::vector<double> outer(4), middle(9), keys(4);
  for (int64_t i = 0; i < 6000; ++i) {
    const std::vector<int32_t> tokens = drawn(task, i).tokens;
    const size_t second = 33;  // behind SEP; BOS, then 32 tokens of the first half
    ++outer[static_cast<size_t>((tokens[1] - 19) * 2 + tokens[second + 1] - 19)];
    ++middle[static_cast<size_t>((tokens[2] - 16) * 3 + tokens[second + 2] - 16)];
    ++keys[static_cast<size_t>((tokens[3] - 14) * 2 + tokens[second + 3] - 14)];
  }
  CHECK(test::uniform(outer));
  CHECK(test::uniform(middle));
  CHECK(test::uniform(keys));
}

TEST_CASE("multi-level joint recall: refused parameters") {
  const auto refused = [](const MultilevelJointRecallConfig& config) {
    return message_of<UsageError>([&] { MultilevelJointRecall task(config); });
  };
  CHECK(mentions(refused({{}, 16, 0}), "task.multilevel_joint_recall.levels"));
  CHECK(mentions(refused({{4, 0}, 16, 0}), "task.multilevel_joint_recall.levels"));
  CHECK(mentions(refused({{10000, 10000, 10000}, 16, 0}), "task.multilevel_joint_recall.levels"));
  CHECK(mentions(refused({{4, 4, 4}, 16, 37}), "task.multilevel_joint_recall.vocab_size = 37"));
  CHECK(refused({{4, 4, 4}, 16, 38}).empty());
}
