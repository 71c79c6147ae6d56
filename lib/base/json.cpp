#include "lib/base/json.h"

#include <cstdio>
#include <set>

#include "lib/base/error.h"
#include "lib/base/files.h"

namespace hax {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& fault) { throw DataError("not valid JSON: " + fault); }

// The library's message without its own error number; it quotes what it read last, however long.
std::string without_number(const std::string& what) {
  std::string text = what.substr(what.find("] ") + 2);
  if (text.size() > 300) text.resize(300);
  // Bytes that are no text, a character that the cut went through among them, are replaced.
  text = json(text).dump(-1, ' ', false, json::error_handler_t::replace);
  std::string plain;
  for (size_t i = 1; i + 1 < text.size(); ++i) {
    if (text[i] == '\\' && (text[i + 1] == '"' || text[i + 1] == '\\')) ++i;
    plain += text[i];
  }
  return plain;
}

// Watches the events that build a document.
class Watch {
 public:
  bool operator()(int depth, json::parse_event_t event, const json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
        keys_.emplace_back();
        [[fallthrough]];
      case json::parse_event_t::array_start:
        // `depth` counts the collections that are open around this one.
        if (depth >= kMaxJsonDepth) refuse("nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
        break;
      case json::parse_event_t::object_end:
        keys_.pop_back();
        break;
      case json::parse_event_t::key:
        if (!keys_.back().insert(parsed.get_ref<const std::string&>()).second)
          refuse("the key " + shown_json(parsed) + " appears twice in one object");
        break;
      case json::parse_event_t::array_end:
      case json::parse_event_t::value:
        break;
    }
    return true;
  }

 private:
  std::vector<std::set<std::string>> keys_;  // of each open object
};

std::string shown_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.15g", value);
  return text;
}

bool is_integer(const json& value, int64_t& number) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return false;
  number = value.get<int64_t>();
  return true;
}

}  // namespace

json parse_json(std::string_view text) {
  if (const size_t nul = text.find('\0'); nul != text.npos) {  // the library would take it for the end
    refuse("a NUL byte at byte " + std::to_string(nul));
  }
  Watch watch;
  try {
    return json::parse(text.begin(), text.end(), [&](int depth, json::parse_event_t event, json& parsed) {
      return watch(depth, event, parsed);
    });
  } catch (const json::exception& error) {
    refuse(without_number(error.what()));
  }
}

json parse_json(std::string_view text, const std::string& place, const std::string& remedy) {
  try {
    return parse_json(text);
  } catch (const DataError& e) {
    throw DataError(place + ": " + e.what() + "; " + remedy);
  }
}

json read_json_file(const std::string& path, uint64_t max_bytes, const std::string& remedy) {
  std::string text;
  try {
    text = read_file(path, max_bytes);
  } catch (const DataError& e) {
    throw DataError(damaged_place(path) + ": " + e.what() + "; " + remedy);
  }
  return parse_json(text, damaged_place(path), remedy);
}

std::string document_checksum(json document) {
  document.erase("checksum");
  return checksum(as_bytes(document.dump()));
}

std::string shown_json(const json& value) {
  constexpr size_t limit = 80;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  if (text.size() > limit) text = text.substr(0, limit) + "...";
  return text;
}

JsonReader::JsonReader(const json& object, std::string place, std::string remedy, std::string prefix)
    : object_(object), place_(std::move(place)), remedy_(std::move(remedy)), prefix_(std::move(prefix)) {
  if (object_.is_object()) return;
  const std::string name = prefix_.empty() ? "" : prefix_.substr(0, prefix_.size() - 1) + " ";
  throw DataError(place_ + ": " + name + "must be an object, found " + shown_json(object_) + "; " + remedy_);
}

JsonReader JsonReader::child(const std::string& key) const {
  return JsonReader(find(key), place_, remedy_, prefix_ + key + ".");
}

JsonReader JsonReader::element(const std::string& key, size_t index) const {
  return JsonReader(find(key).at(index), place_, remedy_, prefix_ + key + "[" + std::to_string(index) + "].");
}

bool JsonReader::has(const std::string& key) const { return object_.contains(key); }

const json& JsonReader::find(const std::string& key) const {
  const auto found = object_.find(key);
  if (found == object_.end()) fail(key, "is missing");
  return *found;
}

std::string JsonReader::text(const std::string& key) const {
  const json& value = find(key);
  if (!value.is_string()) fail(key, "must be a string, found " + shown_json(value));
  return value.get<std::string>();
}

bool JsonReader::boolean(const std::string& key) const {
  const json& value = find(key);
  if (!value.is_boolean()) fail(key, "must be true or false, found " + shown_json(value));
  return value.get<bool>();
}

int64_t JsonReader::integer(const std::string& key, int64_t low, int64_t high) const {
  const json& value = find(key);
  int64_t number = 0;
  if (!is_integer(value, number) || number < low || number > high) {
    fail(key, "must be an integer in [" + std::to_string(low) + ", " + std::to_string(high) + "], found " +
                  shown_json(value));
  }
  return number;
}

double JsonReader::number(const std::string& key, double low, double high) const {
  const json& value = find(key);
  const double number = value.is_number() ? value.get<double>() : 0.0;
  if (!value.is_number() || number < low || number > high) {
    fail(key, "must be a number in [" + shown_number(low) + ", " + shown_number(high) + "], found " +
                  shown_json(value));
  }
  return number;
}

std::vector<std::string> JsonReader::texts(const std::string& key) const {
  const json& value = find(key);
  std::vector<std::string> result;
  const auto refuse = [&] { fail(key, "must be a list of strings, found " + shown_json(value)); };
  if (!value.is_array()) refuse();
  for (const json& item : value) {
    if (!item.is_string()) refuse();
    result.push_back(item.get<std::string>());
  }
  return result;
}

std::vector<int64_t> JsonReader::integers(const std::string& key) const {
  const json& value = find(key);
  std::vector<int64_t> result;
  const auto add = [&](const json& item) {
    int64_t number = 0;
    if (!is_integer(item, number))
      fail(key, "must be a list of integers of 64 bits, found " + shown_json(value));
    result.push_back(number);
  };
  if (!value.is_array()) add(value);
  if (value.is_array()) {
    for (const json& item : value) add(item);
  }
  return result;
}

void JsonReader::fail(const std::string& key, const std::string& fault) const {
  throw DataError(place_ + ": " + prefix_ + key + " " + fault + "; " + remedy_);
}

}  // namespace hax
