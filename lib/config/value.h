// From a YAML value to a field, strictly: the type is the field's, never a guess.
//
// Integers are plain decimal digits (64 and -1; not 1.5, 1e3, 0x40, 010, 1_000 or "64"). Numbers are decimal,
// with or without fraction and exponent, and finite. Booleans are true and false alone. Text is
// quoted, or plain where YAML would not read it as a number or a boolean. A value in place of a list is a
// list of one. Null is no value.
#pragma once

#include <string>
#include <vector>

#include "lib/config/fields.h"
#include "lib/config/yaml.h"

namespace hax {

// Stores the value and returns true; or leaves the field as it was and appends what was found and what
// would do, unless the parser has already said so.
bool assign(const Field& field, const YamlNode& node, std::vector<YamlProblem>& problems);

// What would do: "an integer >= 1"; "one of sign, argmax".
std::string wanted(const Field& field);

// A value's kind and text for a message: `"x", text`, "a list", "nothing".
std::string found(const YamlNode& node);

}  // namespace hax
