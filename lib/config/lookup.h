// Keys as people name them on a command line, and the values of a config under them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/config/config.h"

namespace hax {

// The dotted key that `name` stands for: itself, or the only key whose last part it is ("lr" is train.lr).
// Throws UsageError that begins with `flag`: an unknown name with the nearest known keys, an ambiguous one
// with all that it could be.
std::string full_key(const std::string& name, const std::string& flag);

// The last part of a dotted key.
std::string_view leaf_of(std::string_view key);

struct KeyValue {
  std::string text;              // "causal", "lsh+key_selection", "64+128", "0.003"; "none" for []
  std::optional<double> number;  // of integers and numbers: what they are ordered by
  bool operator==(const KeyValue& other) const { return text == other.text; }
};

// The value of a config's field. Throws std::invalid_argument for a key that full_key does not give.
KeyValue value_of_key(const Config& config, const std::string& key);

// False for a label and for the keys that say where data lie, how often things are said and saved, and how
// many threads work: the results of two configs that differ in nothing else are the same.
bool changes_results(std::string_view key);

}  // namespace hax
