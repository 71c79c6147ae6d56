#include "lib/eval/table.h"

#include "lib/eval/latex.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace hax {
namespace {

nlohmann::ordered_json for_programs(const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  if (const auto* integer = std::get_if<int64_t>(&cell)) return *integer;
  if (const auto* number = std::get_if<Number>(&cell)) return number->value;
  if (const auto* numbers = std::get_if<Numbers>(&cell)) {
    auto list = nlohmann::ordered_json::array();
    for (const Number& number : *numbers) list.push_back(number.value);
    return list;
  }
  return nullptr;
}

std::string full_text(double value) { return nlohmann::json(value).dump(); }

// Shorter than full_text for whole numbers and small ones: "10", "1e-05".
std::string shortest_text(double value) {
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, result.ptr};
}

std::string decimal_text(const Number& number) {
  if (number.decimals == kShortest) return shortest_text(number.value);
  char buffer[512];
  std::snprintf(buffer, sizeof buffer, "%.*f", number.decimals, number.value);
  return buffer;
}

std::string csv_field(const Cell& cell) {
  if (const auto* number = std::get_if<Number>(&cell)) return full_text(number->value);
  if (const auto* numbers = std::get_if<Numbers>(&cell)) {
    std::string list;
    for (const Number& number : *numbers) {
      if (!list.empty()) list += ' ';
      list += full_text(number.value);
    }
    return list;
  }
  if (std::holds_alternative<std::monostate>(cell)) return "";
  const std::string text = text_of(cell);
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

// UTF-8 code points, which is what a terminal's columns are for the text that appears here.
size_t width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](unsigned char c) { return (c & 0xC0) != 0x80; }));
}

std::string padded(const std::string& text, size_t to, bool right) {
  const std::string blanks(to - std::min(to, width(text)), ' ');
  return right ? blanks + text : text + blanks;
}

std::string markdown_text(const Cell& cell) {
  std::string out;
  for (const char c : text_of(cell)) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

std::string aligned(const Table& table, bool markdown) {
  const size_t n = table.columns.size();
  std::vector<std::vector<std::string>> cells;
  std::vector<size_t> widths(n);
  for (size_t c = 0; c < n; ++c) widths[c] = std::max<size_t>(width(table.columns[c]), markdown ? 4 : 1);
  for (const auto& row : table.rows) {
    auto& line = cells.emplace_back();
    for (size_t c = 0; c < n; ++c) {
      line.push_back(markdown ? markdown_text(row[c]) : text_of(row[c]));
      widths[c] = std::max(widths[c], width(line.back()));
    }
  }
  std::vector<bool> numbers(n);
  for (size_t c = 0; c < n; ++c) numbers[c] = table.numeric(c);
  const std::string edge = markdown ? "| " : "", gap = markdown ? " | " : "  ", close = markdown ? " |" : "";
  auto line = [&](const std::vector<std::string>& texts) {
    std::string out = edge;
    for (size_t c = 0; c < n; ++c) out += (c ? gap : "") + padded(texts[c], widths[c], numbers[c]);
    out += close;
    while (!markdown && !out.empty() && out.back() == ' ') out.pop_back();
    return out + "\n";
  };
  std::vector<std::string> rule(n);
  for (size_t c = 0; c < n; ++c) {
    rule[c] = std::string(widths[c], '-');
    if (markdown && numbers[c]) rule[c].back() = ':';
  }
  std::string out = table.caption.empty() ? "" : table.caption + "\n\n";
  out += line(table.columns) + line(rule);
  for (const auto& texts : cells) out += line(texts);
  if (!table.notes.empty()) out += "\n";
  for (const auto& note : table.notes) out += note + (markdown ? "  \n" : "\n");
  return out;
}

constexpr std::pair<std::string_view, TableFormat> kFormats[] = {{"text", TableFormat::text},
                                                                 {"md", TableFormat::markdown},
                                                                 {"latex", TableFormat::latex},
                                                                 {"csv", TableFormat::csv},
                                                                 {"json", TableFormat::json}};

}  // namespace

std::optional<TableFormat> table_format(std::string_view name) {
  for (const auto& [known, format] : kFormats) {
    if (known == name) return format;
  }
  return std::nullopt;
}

std::string text_of(const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  if (const auto* integer = std::get_if<int64_t>(&cell)) return std::to_string(*integer);
  if (const auto* number = std::get_if<Number>(&cell)) return decimal_text(*number);
  if (const auto* numbers = std::get_if<Numbers>(&cell)) {
    std::string list;
    for (const Number& number : *numbers) {
      if (!list.empty()) list += ' ';
      list += decimal_text(number);
    }
    return list;
  }
  return "-";
}

bool Table::numeric(size_t column) const {
  return std::none_of(rows.begin(), rows.end(), [&](const auto& row) {
    return std::holds_alternative<std::string>(row[column]) || std::holds_alternative<Numbers>(row[column]);
  });
}

std::string Table::render(TableFormat format) const {
  switch (format) {
    case TableFormat::text:
      return aligned(*this, false);
    case TableFormat::markdown:
      return aligned(*this, true);
    case TableFormat::latex:
      return latex_table(*this);
    case TableFormat::csv: {
      std::string out;
      const auto line = [&](const std::vector<Cell>& cells) {
        for (size_t c = 0; c < cells.size(); ++c) {
          if (c > 0) out += ',';
          out += csv_field(cells[c]);
        }
        out += '\n';
      };
      line({columns.begin(), columns.end()});
      for (const auto& row : rows) line(row);
      return out;
    }
    case TableFormat::json: {
      nlohmann::ordered_json json = {
          {"caption", caption}, {"rows", nlohmann::ordered_json::array()}, {"notes", notes}};
      for (const auto& row : rows) {
        nlohmann::ordered_json object;
        for (size_t c = 0; c < row.size(); ++c) object[columns[c]] = for_programs(row[c]);
        json["rows"].push_back(object);
      }
      return json.dump(2) + "\n";
    }
  }
  return {};
}

}  // namespace hax
