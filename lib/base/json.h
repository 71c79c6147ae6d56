// Strict reading of JSON that a program wrote, somebody may have edited, and a disk may have damaged.
//
// Beyond JSON's grammar are refused: NUL bytes, nesting deeper than kMaxJsonDepth (so that a document can be
// walked, compared and printed by recursion), and keys that appear twice in one object.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace hax {

inline constexpr int kMaxJsonDepth = 64;

// Throws DataError, "not valid JSON: ..." with line and column; the caller names the file.
nlohmann::json parse_json(std::string_view text);

// The same with who is at fault and what to do: "PLACE: not valid JSON: ...; REMEDY".
nlohmann::json parse_json(std::string_view text, const std::string& place, const std::string& remedy);
// A file of hax's own, of at most `max_bytes`. What cannot be read or parsed is a DataError, "PATH: damaged:
// ...; REMEDY"; read its keys by a JsonReader of damaged_place(path).
nlohmann::json read_json_file(const std::string& path, uint64_t max_bytes, const std::string& remedy);
inline std::string damaged_place(const std::string& path) { return path + ": damaged"; }

// What a document's key "checksum" is to hold: that of all its other keys.
std::string document_checksum(nlohmann::json document);

// A value for a message, on one line, cut after 80 bytes.
std::string shown_json(const nlohmann::json& value);

// The keys of one object, read by type. What is missing or of another type is a DataError:
// "PLACE: KEY what was found; REMEDY". Numbers are never converted: 1.0, true and "1" are no integers.
class JsonReader {
 public:
  // `object` is borrowed; `remedy` begins with what to do, "generate the dataset again".
  JsonReader(const nlohmann::json& object, std::string place, std::string remedy, std::string prefix = "");
  JsonReader child(const std::string& key) const;                  // the object under `key`
  JsonReader element(const std::string& key, size_t index) const;  // an object of the list under `key`

  bool has(const std::string& key) const;
  const nlohmann::json& find(const std::string& key) const;
  std::string text(const std::string& key) const;
  bool boolean(const std::string& key) const;
  int64_t integer(const std::string& key, int64_t low, int64_t high) const;  // in [low, high]
  double number(const std::string& key, double low, double high) const;
  std::vector<std::string> texts(const std::string& key) const;
  std::vector<int64_t> integers(const std::string& key) const;  // a plain number is a list of one

  // The same by the type of where it goes, of any value.
  void get(const std::string& key, int64_t& value) const { value = integer(key, INT64_MIN, INT64_MAX); }
  void get(const std::string& key, double& value) const { value = number(key, -kLargest, kLargest); }
  void get(const std::string& key, bool& value) const { value = boolean(key); }
  void get(const std::string& key, std::vector<int64_t>& value) const { value = integers(key); }

  [[noreturn]] void fail(const std::string& key, const std::string& fault) const;

 private:
  static constexpr double kLargest = std::numeric_limits<double>::max();

  const nlohmann::json& object_;
  std::string place_;
  std::string remedy_;
  std::string prefix_;  // "spec."
};

}  // namespace hax
