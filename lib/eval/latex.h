// Tables as LaTeX, for a document with \usepackage{booktabs} and UTF-8 input.
#pragma once

#include <string>
#include <string_view>

#include "lib/eval/table.h"

namespace hax {

// Plain text as LaTeX: the ten special characters and the signs that tables here use (plus-minus, times,
// minus, comparisons) escaped; other UTF-8 text as it is.
std::string latex_text(std::string_view text);

// A floating `table`: caption, booktabs rules, numbers flush right, the notes in small print below.
std::string latex_table(const Table& table);

}  // namespace hax
