#include "lib/eval/latex.h"

#include <utility>

namespace hax {
namespace {

constexpr std::pair<std::string_view, std::string_view> kEscapes[] = {
    {"\\", "\\textbackslash{}"},
    {"~", "\\textasciitilde{}"},
    {"^", "\\textasciicircum{}"},
    {"&", "\\&"},
    {"%", "\\%"},
    {"$", "\\$"},
    {"#", "\\#"},
    {"_", "\\_"},
    {"{", "\\{"},
    {"}", "\\}"},
    {"<", "\\textless{}"},
    {">", "\\textgreater{}"},
    {"\u00b1", "$\\pm$"},
    {"\u00d7", "$\\times$"},
    {"\u2212", "$-$"},
    {"\u2264", "$\\leq$"},
    {"\u2265", "$\\geq$"},
};

}  // namespace

std::string latex_text(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    size_t taken = 1;
    std::string_view replacement = text.substr(0, 1);
    for (const auto& [sign, escape] : kEscapes) {
      if (!text.starts_with(sign)) continue;
      taken = sign.size();
      replacement = escape;
      break;
    }
    out += replacement;
    text.remove_prefix(taken);
  }
  return out;
}

std::string latex_table(const Table& table) {
  std::string alignment;
  for (size_t c = 0; c < table.columns.size(); ++c) alignment += table.numeric(c) ? 'r' : 'l';
  std::string out = "\\begin{table}\n\\centering\n";
  if (!table.caption.empty()) out += "\\caption{" + latex_text(table.caption) + "}\n";
  out += "\\begin{tabular}{" + alignment + "}\n\\toprule\n";
  const auto line = [&](auto text_at) {
    for (size_t c = 0; c < table.columns.size(); ++c) {
      if (c > 0) out += " & ";
      out += latex_text(text_at(c));
    }
    out += " \\\\\n";
  };
  line([&](size_t c) { return table.columns[c]; });
  out += "\\midrule\n";
  for (const auto& row : table.rows) line([&](size_t c) { return text_of(row[c]); });
  out += "\\bottomrule\n\\end{tabular}\n";
  for (const auto& note : table.notes)
    out += "\n\\smallskip\n{\\footnotesize " + latex_text(note) + "\\par}\n";
  return out + "\\end{table}\n";
}

}  // namespace hax
