// Token slots as JSON objects, as manifests and checkpoints store them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lib/base/json.h"
#include "lib/data/example.h"

namespace hax {

inline void to_json(nlohmann::json& json, const TokenSlot& slot) {
  json = {{"name", slot.name}, {"first", slot.first}, {"count", slot.count}, {"is_value", slot.is_value}};
}

// The list under `key`. Throws DataError, also for ids outside the vocabulary.
inline std::vector<TokenSlot> read_slots(const JsonReader& reader, const std::string& key,
                                         int64_t vocab_size) {
  const nlohmann::json& list = reader.find(key);
  if (!list.is_array()) reader.fail(key, "must be a list of objects, found " + shown_json(list));
  std::vector<TokenSlot> slots;
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonReader item = reader.element(key, i);
    TokenSlot slot;
    slot.name = item.text("name");
    slot.first = item.integer("first", 0, vocab_size - 1);
    slot.count = item.integer("count", 1, vocab_size - slot.first);
    slot.is_value = item.boolean("is_value");
    slots.push_back(slot);
  }
  return slots;
}

}  // namespace hax
