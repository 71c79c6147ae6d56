// A configuration as text for people and programs. All of it walks the fields of lib/config/fields.h.
#pragma once

#include <string>
#include <vector>

#include "lib/config/config.h"

namespace hax {

// Every field, in the order of the structs; load_config of this text gives an equal Config.
std::string to_yaml(const Config& config);

// The same as one JSON object, nested like the YAML, in the same order. `indent` < 0: on one line.
// Text must be UTF-8, as check() demands.
std::string to_json(const Config& config, int indent = -1);

// The fields that differ: "train.lr: 0.002 -> 0.001", a's value first. Empty where the two are equal.
std::vector<std::string> difference(const Config& a, const Config& b);

// A field's documentation, type, unit, range and default; a section's list of fields; for "" the list of
// everything. Throws UsageError with the nearest known key for an unknown one.
std::string explain(const std::string& key);

// docs/configuration.md.
std::string configuration_markdown();

}  // namespace hax
