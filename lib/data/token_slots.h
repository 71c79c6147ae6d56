// Token slots as JSON objects, as manifests and checkpoints store them.
#pragma once

#include <nlohmann/json.hpp>

#include "lib/data/example.h"

namespace hax {

inline void to_json(nlohmann::json& json, const TokenSlot& slot) {
  json = {{"name", slot.name}, {"first", slot.first}, {"count", slot.count}, {"is_value", slot.is_value}};
}

// Throws nlohmann::json::exception for a missing key or another type.
inline void from_json(const nlohmann::json& json, TokenSlot& slot) {
  json.at("name").get_to(slot.name);
  json.at("first").get_to(slot.first);
  json.at("count").get_to(slot.count);
  json.at("is_value").get_to(slot.is_value);
}

}  // namespace hax
