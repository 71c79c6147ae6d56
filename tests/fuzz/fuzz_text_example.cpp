// A line of the official text form and the line of its mask.
#include <algorithm>

#include "data_gen/text_example.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hax;
  static const JointRecall task([] {
    JointRecallConfig config;
    config.n_context_min = config.n_key_min = 1;
    config.n_context_max = config.n_key_max = 2;
    config.n_value = 4;
    return config;
  }());
  const std::string text = fuzz::text_of(data, size);
  const size_t cut = std::min(text.find('\n'), text.size());
  Example example;
  const TextFault fault =
      parse_text_example(task, text.substr(0, cut), text.substr(std::min(cut + 1, text.size())), example);
  fuzz::demand(fault.text.size() < 1000, "a fault is short");
  if (fault.text.empty()) {
    fuzz::demand(task.fault(example).empty(), "what is accepted is an example of the task");
    fuzz::demand(task.oracle(example) == example.targets, "its answers are right");
  }
  return 0;
}
