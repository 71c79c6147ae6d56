// Damaged examples are found, and named.
#include "data_gen/check_examples.h"

#include "data_gen/registry.h"
#include "data_gen/stream.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace hax::test {

TEST_CASE("the first example that its task cannot have drawn, or its oracle cannot solve, is named") {
  TaskConfig config;
  config.joint_recall.n_context_max = 6;
  config.joint_recall.n_key_max = 6;
  const std::shared_ptr<const Task> task = make_task(config);
  const TaskStream stream(task, 1, ExampleSet(), "");
  const auto sound = [&](int64_t index, Example& result) { stream.example(index, result); };
  CHECK(first_bad_example(*task, 20, sound).empty());

  const auto other_answer = [&](int64_t index, Example& result) {
    sound(index, result);
    if (index == 7) result.targets[2] = result.targets[2] == 10 ? 11 : 10;
  };
  CHECK(first_bad_example(*task, 7, other_answer).empty());
  CHECK(contains(first_bad_example(*task, 20, other_answer), "example 7: "));

  const auto nothing_asked = [&](int64_t index, Example& result) {
    sound(index, result);
    result.scored.clear();
    result.targets.clear();
  };
  CHECK(contains(first_bad_example(*task, 1, nothing_asked), "example 0: "));
}

}  // namespace hax::test
