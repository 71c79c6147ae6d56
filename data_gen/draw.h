// An example as a person reads it: blocks a line, every token with its position, symbol and role.
#pragma once

#include <string>

#include "data_gen/task.h"

namespace hax {

// Lines of at most about 100 columns; a scored position is followed by "?" and its answer in brackets.
// Throws DataError when the example is none of the task's.
std::string draw(const Task& task, const Example& example);

}  // namespace hax
