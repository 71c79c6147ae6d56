#include "lib/eval/table.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace hax {
namespace {

std::string for_people(const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  if (const auto* integer = std::get_if<int64_t>(&cell)) return std::to_string(*integer);
  const auto& number = std::get<Number>(cell);
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", number.decimals, number.value);
  return buffer;
}

nlohmann::ordered_json for_programs(const Cell& cell) {
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  if (const auto* integer = std::get_if<int64_t>(&cell)) return *integer;
  return std::get<Number>(cell).value;
}

std::string csv_field(const Cell& cell) {
  if (const auto* number = std::get_if<Number>(&cell)) return nlohmann::json(number->value).dump();
  std::string text = for_people(cell);
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

std::string aligned(const Table& table, bool markdown) {
  const size_t n = table.columns.size();
  std::vector<std::vector<std::string>> cells;
  std::vector<size_t> widths(n);
  std::vector<bool> numeric(n, true);
  for (size_t c = 0; c < n; ++c) widths[c] = std::max<size_t>(width(table.columns[c]), markdown ? 4 : 1);
  for (const auto& row : table.rows) {
    auto& line = cells.emplace_back();
    for (size_t c = 0; c < n; ++c) {
      line.push_back(for_people(row[c]));
      widths[c] = std::max(widths[c], width(line.back()));
      if (std::holds_alternative<std::string>(row[c])) numeric[c] = false;
    }
  }
  const std::string edge = markdown ? "| " : "", gap = markdown ? " | " : "  ", close = markdown ? " |" : "";
  auto line = [&](const std::vector<std::string>& texts) {
    std::string out = edge;
    for (size_t c = 0; c < n; ++c) out += (c ? gap : "") + padded(texts[c], widths[c], numeric[c]);
    out += close;
    while (!markdown && !out.empty() && out.back() == ' ') out.pop_back();
    return out + "\n";
  };
  std::vector<std::string> rule(n);
  for (size_t c = 0; c < n; ++c) {
    rule[c] = std::string(widths[c], '-');
    if (markdown && numeric[c]) rule[c].back() = ':';
  }
  std::string out = table.caption.empty() ? "" : table.caption + "\n\n";
  out += line(table.columns) + line(rule);
  for (const auto& texts : cells) out += line(texts);
  if (!table.notes.empty()) out += "\n";
  for (const auto& note : table.notes) out += note + (markdown ? "  \n" : "\n");
  return out;
}

}  // namespace

std::string Table::render(TableFormat format) const {
  switch (format) {
    case TableFormat::text:
      return aligned(*this, false);
    case TableFormat::markdown:
      return aligned(*this, true);
    case TableFormat::csv: {
      std::string out;
      for (size_t c = 0; c < columns.size(); ++c) out += (c ? "," : "") + csv_field(columns[c]);
      out += "\n";
      for (const auto& row : rows) {
        for (size_t c = 0; c < row.size(); ++c) out += (c ? "," : "") + csv_field(row[c]);
        out += "\n";
      }
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
