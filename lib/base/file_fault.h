// What the standard library says of a path that it could not look at, in the words of the program's errors.
#pragma once

#include <filesystem>
#include <string>

namespace hax {

// "PATH: cannot be used: REASON; what would do". Where the error names two paths both are told.
std::string fault_text(const std::filesystem::filesystem_error& error);

}  // namespace hax
