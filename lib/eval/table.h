// A table of results with a caption, rendered for people (text, Markdown, LaTeX) and for programs (CSV,
// JSON).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace hax {

enum class TableFormat { text, markdown, latex, csv, json };
// Names on the command line: text, md, latex, csv, json.
std::optional<TableFormat> table_format(std::string_view name);

// A number keeps its full value for CSV and JSON; `decimals` is for people, kShortest the fewest digits that
// read back as the same number.
inline constexpr int kShortest = -1;
struct Number {
  double value = 0.0;
  int decimals = 2;
};
using Numbers = std::vector<Number>;  // with blanks between; a list in JSON
// monostate: nothing to show; "-" for people, empty in CSV, null in JSON.
using Cell = std::variant<std::monostate, std::string, int64_t, Number, Numbers>;
std::string text_of(const Cell& cell);  // for people

struct Table {
  std::string caption;
  std::vector<std::string> columns;
  std::vector<std::vector<Cell>> rows;  // each as long as `columns`
  std::vector<std::string> notes;       // below the table; absent from CSV

  // Ends with a newline. JSON: {"caption": .., "rows": [{column: value, ..}, ..], "notes": [..]}.
  // LaTeX: a `table` with booktabs rules, every text escaped.
  std::string render(TableFormat format) const;
  bool numeric(size_t column) const;  // its cells are single numbers or empty
};

}  // namespace hax
