#include "data_gen/check_examples.h"

namespace hax {

std::string first_bad_example(const Task& task, int64_t count,
                              const std::function<void(int64_t index, Example& result)>& example) {
  Example e;
  for (int64_t index = 0; index < count; ++index) {
    example(index, e);
    const std::string name = "example " + std::to_string(index) + ": ";
    const std::string fault = task.fault(e);
    if (!fault.empty()) return name + fault;
    if (e.scored.empty()) return name + "nothing is asked";
    const std::vector<int32_t> answers = task.oracle(e);
    for (size_t i = 0; i < e.scored.size(); ++i) {
      if (answers.at(i) != e.targets[i]) {
        return name + "the oracle answers " + std::to_string(answers[i]) + " at position " +
               std::to_string(e.scored[i]) + ", the target is " + std::to_string(e.targets[i]);
      }
    }
  }
  return "";
}

}  // namespace hax
