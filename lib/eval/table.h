// A table of results with a caption, rendered for people (text, Markdown) and for programs (CSV, JSON).
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace hax {

enum class TableFormat { text, markdown, csv, json };

// A number keeps its full value for CSV and JSON; `decimals` is for people.
struct Number {
  double value = 0.0;
  int decimals = 2;
};
using Cell = std::variant<std::string, int64_t, Number>;

struct Table {
  std::string caption;
  std::vector<std::string> columns;
  std::vector<std::vector<Cell>> rows;  // each as long as `columns`
  std::vector<std::string> notes;       // below the table; absent from CSV

  // Ends with a newline. JSON: {"caption": .., "rows": [{column: value, ..}, ..], "notes": [..]}.
  std::string render(TableFormat format) const;
};

}  // namespace hax
