#include "lib/config/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <system_error>
#include <type_traits>

#include "lib/base/nearest.h"
#include "lib/config/names.h"

namespace hax {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

size_t digits_at(std::string_view text, size_t from) {
  size_t end = from;
  while (end < text.size() && is_digit(text[end])) ++end;
  return end - from;
}

// [-+]? digits, without a leading zero: 010 is 8 to some readers of YAML and 10 to others.
bool is_integer(std::string_view text) {
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  const size_t digits = digits_at(text, sign);
  return digits > 0 && sign + digits == text.size() && (digits == 1 || text[sign] != '0');
}

// [-+]? (digits [. digits?] | . digits) ([eE] [-+]? digits)?
bool is_number(std::string_view text) {
  size_t i = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  const size_t whole = digits_at(text, i);
  if (whole > 1 && text[i] == '0') return false;
  i += whole;
  size_t fraction = 0;
  if (i < text.size() && text[i] == '.') {
    fraction = digits_at(text, ++i);
    i += fraction;
  }
  if (whole + fraction == 0) return false;
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    if (i < text.size() && (text[i] == '-' || text[i] == '+')) ++i;
    const size_t exponent = digits_at(text, i);
    if (exponent == 0) return false;
    i += exponent;
  }
  return i == text.size();
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
  return out;
}

bool is_boolean(std::string_view text) { return lower(text) == "true" || lower(text) == "false"; }

// What some YAML reader takes for a number: such text must be quoted to be text.
bool looks_like_number(std::string_view text) {
  std::string_view body = text;
  if (!body.empty() && (body[0] == '-' || body[0] == '+')) body.remove_prefix(1);
  if (lower(body) == ".inf" || lower(body) == ".nan") return true;
  if (body.starts_with("0x") || body.starts_with("0o")) return body.size() > 2;
  return is_number(text) || (!body.empty() && digits_at(body, 0) == body.size());
}

bool is_not_finite(std::string_view text) {
  std::string body = lower(text);
  if (!body.empty() && (body[0] == '-' || body[0] == '+')) body.erase(0, 1);
  return body == ".inf" || body == ".nan" || body == "inf" || body == "nan" || body == "infinity";
}

std::string_view without_plus(std::string_view text) {
  if (text.starts_with("+")) text.remove_prefix(1);
  return text;
}

template <class T>
std::errc parse(std::string_view text, T& value) {
  const std::string_view body = without_plus(text);
  return std::from_chars(body.data(), body.data() + body.size(), value).ec;
}

std::string refusal(const Field& field, const YamlNode& node, const std::string& advice = "") {
  return "found " + found(node) + "; needs " + wanted(field) + (advice.empty() ? "" : "; " + advice);
}

std::string read(const Field& field, const YamlNode& node, bool& value) {
  if (node.quoted || (node.text != "true" && node.text != "false")) {
    const std::string word = lower(node.text);
    const bool yes = word == "true" || word == "yes" || word == "on" || word == "1";
    const bool no = word == "false" || word == "no" || word == "off" || word == "0";
    return refusal(field, node, yes ? "write true" : no ? "write false" : "");
  }
  value = node.text == "true";
  return "";
}

std::string read(const Field& field, const YamlNode& node, int64_t& value) {
  if (node.quoted) return refusal(field, node, is_integer(node.text) ? "remove the quotation marks" : "");
  if (!is_integer(node.text)) {
    double number = 0.0;
    const bool whole = is_number(node.text) && parse(node.text, number) == std::errc{} &&
                       std::floor(number) == number && std::abs(number) < 1e15;
    return refusal(field, node, whole ? "write " + std::to_string(static_cast<int64_t>(number)) : "");
  }
  int64_t number = 0;
  if (parse(node.text, number) != std::errc{}) return refusal(field, node, "it does not fit 64 bits");
  if (!field.range.contains(static_cast<double>(number))) return refusal(field, node);
  value = number;
  return "";
}

std::string read(const Field& field, const YamlNode& node, double& value) {
  if (node.quoted) return refusal(field, node, is_number(node.text) ? "remove the quotation marks" : "");
  if (is_not_finite(node.text)) return refusal(field, node, "it must be finite");
  if (!is_number(node.text)) return refusal(field, node);
  double number = 0.0;
  if (parse(node.text, number) != std::errc{}) return refusal(field, node, "it does not fit a double");
  if (!field.range.contains(number)) return refusal(field, node);
  value = number;
  return "";
}

std::string read(const Field& field, const YamlNode& node, std::string& value) {
  if (!node.quoted && (looks_like_number(node.text) || is_boolean(node.text))) {
    return refusal(field, node, "put it in quotation marks: " + quote(node.text));
  }
  const std::string fault = text_fault(node.text, false);
  if (!fault.empty()) return refusal(field, node, "it holds " + fault);
  if (!field.range.contains(static_cast<double>(node.text.size()))) {
    return refusal(field, node, "it has " + std::to_string(node.text.size()) + " bytes");
  }
  value = node.text;
  return "";
}

template <class E>
std::string read_enum(const Field& field, const YamlNode& node, E& value) {
  const std::optional<E> named = value_of<E>(node.text);
  if (!named) {
    std::vector<std::string> names;
    for (const auto& entry : enum_names<E>) names.emplace_back(entry.name);
    const auto meant = nearest_names(node.text, names, 1);
    return refusal(field, node, meant.empty() ? "" : "did you mean " + meant.front() + "?");
  }
  value = *named;
  return "";
}

template <class E>
bool read_list(const Field& field, const YamlNode& node, std::vector<E>& value,
               std::vector<YamlProblem>& problems) {
  std::vector<E> list;
  const auto read_element = [&](const YamlNode& item, E& element) {
    if constexpr (std::is_enum_v<E>)
      return read_enum(field, item, element);
    else
      return read(field, item, element);
  };
  for (const YamlNode& item : node.items) {
    E element{};
    const std::string problem = item.refused                          ? ""
                                : item.kind != YamlNode::Kind::scalar ? refusal(field, item)
                                                                      : read_element(item, element);
    if (!problem.empty()) problems.push_back({item.line, problem});
    if (!problem.empty() || item.refused) continue;
    list.push_back(element);
  }
  if (list.size() != node.items.size()) return false;
  value = std::move(list);
  return true;
}

}  // namespace

std::string wanted(const Field& field) {
  const std::string range = field.range.text();
  if (std::holds_alternative<std::string*>(field.value)) {
    return "text" + (range.empty() ? ""
                                   : " of at most " + std::to_string(static_cast<int64_t>(field.range.high)) +
                                         " bytes");
  }
  std::string text = field.type();
  if (text == "integer") text = "an integer";
  if (text == "number") text = "a number";
  if (text.starts_with("list")) text = "a " + text;
  if (range.empty()) return text;
  return text + (range.find('x') == std::string::npos ? " " : " x with ") + range;
}

std::string found(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::null:
      return "nothing (null)";
    case YamlNode::Kind::sequence:
      return "a list";
    case YamlNode::Kind::map:
      return "a mapping of keys";
    case YamlNode::Kind::scalar:
      break;
  }
  if (node.quoted) return "the text " + shown(node.text);
  const bool one_word =
      std::all_of(node.text.begin(), node.text.end(), [](char c) { return c > ' ' && c < 0x7f; });
  return one_word && node.text.size() <= 60 ? node.text : shown(node.text);
}

bool assign(const Field& field, const YamlNode& node, std::vector<YamlProblem>& problems) {
  if (node.refused) return false;
  if (node.kind == YamlNode::Kind::null) {
    problems.push_back({node.line, refusal(field, node, "give a value or delete the key")});
    return false;
  }
  const auto read_scalar = [&](auto& value) -> std::string {
    if (node.kind != YamlNode::Kind::scalar) return refusal(field, node);
    if constexpr (std::is_enum_v<std::remove_reference_t<decltype(value)>>)
      return read_enum(field, node, value);
    else
      return read(field, node, value);
  };
  return std::visit(
      [&](auto* pointer) {
        std::string problem;
        if constexpr (is_list<std::remove_pointer_t<decltype(pointer)>>) {
          if (node.kind == YamlNode::Kind::sequence) return read_list(field, node, *pointer, problems);
          if (node.kind == YamlNode::Kind::scalar) {
            YamlNode one = node;  // a value in place of a list is a list of one
            one.items = {node};
            return read_list(field, one, *pointer, problems);
          }
          problem = refusal(field, node);
        } else {
          problem = read_scalar(*pointer);
        }
        if (!problem.empty()) problems.push_back({node.line, problem});
        return problem.empty();
      },
      field.value);
}

}  // namespace hax
