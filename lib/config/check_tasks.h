// The rules of each task's parameters, beyond the ranges of single fields.
#pragma once

#include <string>
#include <vector>

#include "lib/config/check.h"

namespace hax {

// Of the named task. The fields are inside their ranges.
std::vector<Violation> task_violations(const TaskConfig& task);

// An upper bound of an example's tokens, and how it comes about.
struct LongestExample {
  std::string formula;  // "2 * n_context_max * (2 * n_key_max + 1) + 2"
  int64_t tokens = 0;
  std::vector<std::string> keys;
};
LongestExample longest_example(const TaskConfig& task);

}  // namespace hax
