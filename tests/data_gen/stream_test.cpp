#include "data_gen/stream.h"

#include <set>

#include "data_gen/generate.h"
#include "data_gen/registry.h"
#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"

using namespace hax;
using hax::test::mentions;
using hax::test::message_of;
using hax::test::Scratch;

namespace {

TaskConfig one_size(int64_t contexts, int64_t keys) {
  TaskConfig task;
  task.joint_recall.n_context_min = task.joint_recall.n_context_max = contexts;
  task.joint_recall.n_key_min = task.joint_recall.n_key_max = keys;
  return task;
}

ExampleHash hash_of(std::vector<int32_t> tokens) { return hash_tokens(tokens); }

}  // namespace

TEST_CASE("an example set tells what it holds, also while it grows") {
  ExampleSet set;
  for (int32_t i = 0; i < 5000; ++i) REQUIRE(set.insert(hash_of({i, 1})));
  for (int32_t i = 0; i < 5000; ++i) {
    REQUIRE(!set.insert(hash_of({i, 1})));
    REQUIRE(set.contains(hash_of({i, 1})));
    REQUIRE(!set.contains(hash_of({i, 2})));
  }
  CHECK(set.size() == 5000);
  CHECK(!set.contains(hash_of({})));
  CHECK(set.insert(hash_of({})));
}

TEST_CASE("a stream is reproducible, endless, and apart from the files of its seed") {
  const std::shared_ptr<const Task> task = make_task(one_size(4, 4));
  const TaskStream stream(task, 3, {}, "");
  const TaskStream again(task, 3, {}, "");
  CHECK(stream.size() == -1);
  std::set<std::vector<int32_t>> seen;
  Example a;
  Example b;
  for (int64_t index : {int64_t{5}, int64_t{0}, int64_t{1}, (int64_t{1} << 32) + 5, (int64_t{1} << 56) - 1}) {
    stream.example(index, a);
    again.example(index, b);
    CHECK(task->fault(a) == "");
    CHECK(a.tokens == b.tokens);
    CHECK(seen.insert(a.tokens).second);
  }
  draw_example(*task, 3, Split::train, 5, 0, a);
  CHECK(seen.count(a.tokens) == 0);
  CHECK_THROWS_AS(stream.example(-1, a), std::invalid_argument);
  CHECK_THROWS_AS(stream.example(int64_t{1} << 56, a), std::invalid_argument);
  CHECK(stream.fingerprint() == again.fingerprint());
  CHECK(stream.fingerprint() != TaskStream(task, 4, {}, "").fingerprint());
  CHECK(stream.fingerprint() != TaskStream(make_task(one_size(4, 5)), 3, {}, "").fingerprint());
  CHECK(stream.fingerprint() != TaskStream(task, 3, {}, "x").fingerprint());
}

TEST_CASE("a stream never gives an example that is held out for evaluation") {
  const Scratch scratch;
  DataConfig data;
  data.train_examples = 2;
  data.valid_examples = 8;
  data.test_examples = 6;
  GenerateOptions options;
  options.out = scratch / "d";
  options.threads = 1;
  generate_dataset(one_size(1, 1), data, options);  // 16 examples exist: 14 held out
  const Dataset dataset = Dataset::open(scratch / "d", 1);
  ExampleSet held_out = evaluation_examples(dataset);
  CHECK(held_out.size() == 14);
  const std::shared_ptr<const Task> task = make_task(one_size(1, 1));
  const TaskStream stream(task, 1, held_out, dataset.manifest().fingerprint());
  std::set<std::vector<int32_t>> seen;
  Example example;
  for (int64_t i = 0; i < 200; ++i) {
    stream.example(i, example);
    REQUIRE(!held_out.contains(hash_tokens(example.tokens)));
    seen.insert(example.tokens);
  }
  CHECK(seen.size() == 2);

  for (int64_t i = 0; i < 2; ++i) {
    dataset.split(Split::train).example(i, example);
    held_out.insert(hash_tokens(example.tokens));
  }
  const TaskStream empty(task, 1, held_out, "");
  CHECK(mentions(message_of<UsageError>([&] { empty.example(0, example); }), "n_context 1, n_key 1"));
}
