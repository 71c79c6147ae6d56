#include "lib/base/duration.h"

#include <charconv>
#include <cmath>
#include <string>

namespace hax {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Takes a number off the front: digits, with at most one point among or behind them.
std::optional<double> take_number(std::string_view& text, bool fraction) {
  size_t end = 0;
  bool point = false;
  for (; end < text.size(); ++end) {
    const bool is_point = fraction && !point && text[end] == '.';
    if (!is_digit(text[end]) && !is_point) break;
    point = point || is_point;
  }
  if (end == 0 || !is_digit(text[0])) return std::nullopt;
  double value = 0.0;
  const auto [last, error] = std::from_chars(text.data(), text.data() + end, value);
  if (error != std::errc() || last != text.data() + end) return std::nullopt;
  text.remove_prefix(end);
  return value;
}

// [D-]H:MM:SS
std::optional<double> parse_clock(std::string_view text) {
  double days = 0.0;
  if (const size_t dash = text.find('-'); dash != text.npos) {
    const auto number = take_number(text, false);
    if (!number || text.empty() || text[0] != '-') return std::nullopt;
    days = *number;
    text.remove_prefix(1);
  }
  const auto hours = take_number(text, false);
  if (!hours || text.size() != 6 || text[0] != ':' || text[3] != ':') return std::nullopt;
  double parts[2];
  for (double& part : parts) {
    text.remove_prefix(1);
    if (!is_digit(text[0]) || !is_digit(text[1]) || text[0] > '5') return std::nullopt;
    part = (text[0] - '0') * 10 + (text[1] - '0');
    text.remove_prefix(2);
  }
  return ((days * 24 + *hours) * 60 + parts[0]) * 60 + parts[1];
}

// 1d2h3m4s
std::optional<double> parse_units(std::string_view text) {
  constexpr std::string_view units = "dhms";
  constexpr double seconds[] = {86400, 3600, 60, 1};
  double total = 0.0;
  size_t next = 0;  // the largest unit that may come
  if (text.empty()) return std::nullopt;
  while (!text.empty()) {
    const auto number = take_number(text, true);
    const size_t unit = number && !text.empty() ? units.find(text[0], next) : text.npos;
    if (unit == text.npos) return std::nullopt;
    total += *number * seconds[unit];
    next = unit + 1;
    text.remove_prefix(1);
  }
  return total;
}

}  // namespace

std::optional<double> parse_duration(std::string_view text) {
  const auto seconds = text.find(':') != text.npos ? parse_clock(text) : parse_units(text);
  return seconds && std::isfinite(*seconds) ? seconds : std::nullopt;
}

}  // namespace hax
