#include "data_gen/noisy_joint_recall.h"

#include <chrono>
#include <cmath>

#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"
#include "tests/data_gen/tasks.h"

using namespace hax;
using hax::test::drawn;
using hax::test::mentions;
using hax::test::message_of;

namespace {

NoisyJointRecallConfig config_of(int64_t contexts, int64_t keys, int64_t length, bool in_blocks) {
  return {contexts, contexts, keys, keys, 16, length, 8, in_blocks, 0};
}

}  // namespace

TEST_CASE("noisy joint recall: without its noise it is joint recall, drawn from the same stream") {
  const NoisyJointRecallConfig config = config_of(3, 4, 200, true);
  const NoisyJointRecall noisy(config);
  const JointRecall plain(config.table());
  CHECK(noisy.spec().input_length() == 200);
  for (int64_t i = 0; i < 100; ++i) {
    const Example a = drawn(noisy, i);
    const Example b = drawn(plain, i);
    std::vector<int32_t> rest;
    for (int32_t token : a.tokens) {
      if (token < 10 + 16 + 4 + 3) rest.push_back(token);
    }
    REQUIRE(a.tokens.size() == 201);
    REQUIRE(rest == b.tokens);
    REQUIRE(a.targets == b.targets);
    REQUIRE(a.slices == b.slices);
    for (size_t j = 0; j < a.scored.size(); ++j) {
      REQUIRE(a.tokens[static_cast<size_t>(a.scored[j])] == b.tokens[static_cast<size_t>(b.scored[j])]);
    }
  }
}

TEST_CASE("noisy joint recall: noise stands only where it may, each gap as likely") {
  for (const bool in_blocks : {false, true}) {
    const NoisyJointRecall task(config_of(2, 2, 61, in_blocks));  // a table of 22 tokens, 40 of noise
    std::vector<double> gap(12), token(8);  // before each token of the first half and SEP
    for (int64_t i = 0; i < 3000; ++i) {
      const Example example = drawn(task, i);
      size_t place = 0;
      for (int32_t id : example.tokens) {
        if (id < 30) {
          ++place;
          continue;
        }
        REQUIRE(place < gap.size());  // none in the second half
        ++gap[place];
        ++token[static_cast<size_t>(id - 30)];
      }
    }
    CHECK(test::uniform(token));
    // BOS c k v k v c k v k v SEP
    const std::vector<size_t> allowed =
        in_blocks ? std::vector<size_t>{1, 2, 4, 6, 7, 9, 11} : std::vector<size_t>{1, 6, 11};
    std::vector<double> counts;
    double total = 0.0;
    for (size_t place : allowed) counts.push_back(gap[place]), total += gap[place];
    CHECK(test::uniform(counts));
    CHECK(total == 3000 * 40);
  }
}

TEST_CASE("noisy joint recall: moved noise is found") {
  const NoisyJointRecall task(config_of(2, 2, 40, false));
  const Example good = drawn(task, 1);
  int moved = 0;
  for (size_t i = 1; i + 1 < good.tokens.size(); ++i) {
    if (good.tokens[i] < 30 || good.tokens[i + 1] >= 30) continue;
    // The token behind the noise changes places with it: noise then stands behind a context or SEP.
    Example bad = good;
    std::swap(bad.tokens[i], bad.tokens[i + 1]);
    INFO(i);
    REQUIRE(task.fault(bad) != "");
    ++moved;
  }
  CHECK(moved > 0);
}

TEST_CASE("noisy joint recall: a million tokens take time in proportion") {
  const auto seconds = [](int64_t length) {
    const NoisyJointRecall task(config_of(16, 16, length, true));
    const auto start = std::chrono::steady_clock::now();
    const Example example = drawn(task, 0);
    const auto stop = std::chrono::steady_clock::now();
    CHECK(static_cast<int64_t>(example.tokens.size()) == length + 1);
    CHECK(task.fault(example) == "");
    CHECK(task.oracle(example) == example.targets);
    return std::chrono::duration<double>(stop - start).count();
  };
  seconds(1 << 16);
  // Some 20 ms; anything quadratic would take hours. The bound leaves room for a busy machine.
  CHECK(seconds(1 << 20) < 5.0);
}

TEST_CASE("noisy joint recall: refused parameters") {
  const auto refused = [](const NoisyJointRecallConfig& config) {
    return message_of<UsageError>([&] { NoisyJointRecall task(config); });
  };
  NoisyJointRecallConfig config = config_of(2, 2, 21, true);
  CHECK(refused(config).empty());  // no noise at all
  config.length = 20;
  CHECK(mentions(refused(config), "task.noisy_joint_recall.length = 20 must be >="));
  config = config_of(2, 2, 30, true);
  config.n_noise = 0;
  CHECK(mentions(refused(config), "task.noisy_joint_recall.n_noise"));
  config = config_of(2, 2, 30, true);
  config.vocab_size = 37;
  CHECK(mentions(refused(config), "task.noisy_joint_recall.vocab_size = 37"));
  config.vocab_size = 38;
  CHECK(refused(config).empty());
  config.n_key_min = 3;
  CHECK(mentions(refused(config), "task.noisy_joint_recall.n_key_min = 3 must be <= "));
}
