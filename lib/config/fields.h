// Every field of the configuration: its dotted key, documentation, unit, range and place in a Config.
// fields.cpp has one describe() a struct, one line a field; reading, writing, checking, explaining and
// comparing all walk the list that it makes. A default is what the struct's initialiser says.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lib/config/config.h"

namespace hax {

// Values x with low <= x <= high; a bound is left out where its `_open` is set.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;
  bool high_open = false;

  bool contains(double x) const {
    return (low_open ? x > low : x >= low) && (high_open ? x < high : x <= high);
  }
  std::string text() const;  // ">= 1", "0 <= x < 1"; empty where everything is allowed
};

using FieldValue =
    std::variant<bool*, int64_t*, double*, std::string*, TaskKind*, DataSource*, Statistics*, HashRule*,
                 Centring*, Schedule*, Precision*, DeviceKind*, OnDivergence*, OnSaveError*,
                 std::vector<MixerKind>*, std::vector<PatternKind>*, std::vector<int64_t>*>;

template <class T>
inline constexpr bool is_list = false;
template <class T>
inline constexpr bool is_list<std::vector<T>> = true;

struct Field {
  std::string key;   // "model.sparse.k"
  const char* help;  // one sentence or two
  const char* unit;  // empty: none
  Range range;       // of numbers, in lists too; for text, of its length in bytes
  FieldValue value;  // into the Config that fields_of was given

  std::string_view leaf() const;  // "k"
  std::string type() const;       // "integer", "list of full, lsh, ..."
  std::string text() const;       // the value as YAML: quoted text, shortest round-trip decimals
};

struct Section {
  std::string key;  // "model.sparse"; empty: the root
  const char* help;
};

// Sections and fields in the order of the structs; a section stands before its fields.
using Entry = std::variant<Section, Field>;
std::vector<Entry> entries_of(Config& config);
std::vector<Field> fields_of(Config& config);

std::string format_double(double value);   // the shortest text that reads back as the same double
std::string quote(std::string_view text);  // as a double-quoted YAML scalar

}  // namespace hax
