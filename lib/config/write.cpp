#include "lib/config/write.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <type_traits>

#include "lib/config/fields.h"
#include "lib/config/lookup.h"
#include "lib/config/names.h"

namespace hax {
namespace {

using Json = nlohmann::ordered_json;

size_t depth_of(std::string_view key) { return static_cast<size_t>(std::count(key.begin(), key.end(), '.')); }

Json json_value(const Field& field) {
  return std::visit(
      [](auto* pointer) -> Json {
        using T = std::remove_pointer_t<decltype(pointer)>;
        if constexpr (std::is_enum_v<T>) {
          return std::string(name_of(*pointer));
        } else if constexpr (is_list<T>) {
          Json list = Json::array();
          for (const auto& element : *pointer) {
            if constexpr (std::is_enum_v<typename T::value_type>)
              list.push_back(std::string(name_of(element)));
            else
              list.push_back(element);
          }
          return list;
        } else {
          return *pointer;
        }
      },
      field.value);
}

}  // namespace

std::string to_yaml(const Config& config) {
  Config copy = config;
  std::string text;
  for (const Entry& entry : entries_of(copy)) {
    const auto* field = std::get_if<Field>(&entry);
    const std::string& key = field != nullptr ? field->key : std::get<Section>(entry).key;
    text.append(2 * depth_of(key), ' ').append(leaf_of(key)).append(":");
    if (field != nullptr) text.append(" ").append(field->text());
    text += '\n';
  }
  return text;
}

std::string to_json(const Config& config, int indent) {
  Config copy = config;
  Json root = Json::object();
  for (const Field& field : fields_of(copy)) {
    std::string pointer = "/" + field.key;
    std::replace(pointer.begin(), pointer.end(), '.', '/');
    root[Json::json_pointer(pointer)] = json_value(field);
  }
  return root.dump(indent);
}

std::vector<std::string> difference(const Config& a, const Config& b) {
  Config first = a, second = b;
  const std::vector<Field> before = fields_of(first), after = fields_of(second);
  std::vector<std::string> lines;
  for (size_t i = 0; i < before.size(); ++i) {
    if (before[i].text() != after[i].text()) {
      lines.push_back(before[i].key + ": " + before[i].text() + " -> " + after[i].text());
    }
  }
  return lines;
}

}  // namespace hax
