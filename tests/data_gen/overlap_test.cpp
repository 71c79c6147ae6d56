#include "data_gen/overlap.h"

#include "data_gen/generate.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"

using namespace hax;
using hax::test::Scratch;

TEST_CASE("examples that two splits share are counted, and a dataset's own splits share none") {
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
}
