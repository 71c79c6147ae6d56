#include "data_gen/overlap.h"

#include <set>

#include "data_gen/generate.h"
#include "data_gen/registry.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"

using namespace hax;
using hax::test::Scratch;

TEST_CASE(
    "examples that a split shares with another or a stream are counted; what is held out is not among them") {
  const Scratch scratch;
  TaskConfig task;
  task.joint_recall.n_context_min = task.joint_recall.n_key_min = 2;
  task.joint_recall.n_context_max = task.joint_recall.n_key_max = 2;
  task.joint_recall.n_value = 4;
  const auto dataset = [&](int64_t seed) {
    DataConfig data;
    data.seed = seed;
    data.train_examples = 2000;
    data.valid_examples = data.test_examples = 100;
    GenerateOptions options;
    options.out = scratch / std::to_string(seed);
    generate_dataset(task, data, options);
    return Dataset::open(options.out, 1);
  };
  const Dataset a = dataset(1), b = dataset(2);
  CHECK(shared_examples(a.split(Split::test), a.split(Split::train)) == 0);
  CHECK(shared_examples(a.split(Split::test), a.split(Split::valid)) == 0);
  CHECK(shared_examples(a.split(Split::train), a.split(Split::train)) == 2000);
  // Other data of the same small task, which has 4^4 tables in 64 orders: about 12 in 100.
  const int64_t shared = shared_examples(b.split(Split::test), a.split(Split::train));
  CHECK(shared > 0);
  CHECK(shared < 40);

  // A stream that is kept apart from `a` never draws its evaluation examples; from nothing, it draws some.
  const std::shared_ptr<const Task> drawn = make_task(task);
  const TaskStream apart(drawn, 5, evaluation_examples(a), a.manifest().fingerprint()),
      free(drawn, 5, {}, "");
  CHECK(shared_examples(a.split(Split::test), apart, 2000) == 0);
  const FileSource& test = b.split(Split::test);
  std::set<std::vector<int32_t>> tokens;
  Example example;
  for (int64_t i = 0; i < 2000; ++i) {
    free.example(i, example);
    tokens.insert(example.tokens);
  }
  int64_t expected = 0;
  for (int64_t i = 0; i < test.size(); ++i) {
    test.example(i, example);
    expected += static_cast<int64_t>(tokens.count(example.tokens));
  }
  CHECK(expected > 0);
  for (const int threads : {1, 3}) {
    CHECK(shared_examples(test, free, 2000, {threads}) == expected);
    CHECK(shared_examples(b.split(Split::test), a.split(Split::train), {threads}) == shared);
  }
  CHECK(shared_examples(test, free, 0) == 0);
}
