// Are examples what their task can draw, and can their answers be read off the tokens before them?
#pragma once

#include <functional>
#include <string>

#include "data_gen/task.h"

namespace hax {

// Asks fault() and oracle() about examples 0 .. count - 1. Empty when all are sound and all answers right;
// else the first example's fault, with its index.
std::string first_bad_example(const Task& task, int64_t count,
                              const std::function<void(int64_t index, Example& result)>& example);

}  // namespace hax
