#include "lib/config/lookup.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <type_traits>

#include "lib/base/error.h"
#include "lib/base/nearest.h"
#include "lib/config/fields.h"
#include "lib/config/names.h"
#include "lib/config/nearest.h"
#include "lib/config/yaml.h"

namespace hax {
namespace {

constexpr std::array<std::string_view, 8> kWithoutEffect = {"name",
                                                            "data.path",
                                                            "train.threads",
                                                            "train.log_every",
                                                            "train.checkpoint_every",
                                                            "train.eval_batch_size",
                                                            "train.keep_last",
                                                            "train.on_save_error"};

// "a, b or c"
std::string alternatives(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 < names.size() ? ", " : " or ";
    text += names[i];
  }
  return text;
}

// Up to three keys: by their last parts, then the one that is nearest as a whole.
std::vector<std::string> suggestions(const std::string& name, const std::vector<std::string>& known) {
  std::vector<std::string> leaves, near;
  for (const auto& key : known) leaves.emplace_back(leaf_of(key));
  const auto add = [&](const std::string& key) {
    if (near.size() < 3 && std::find(near.begin(), near.end(), key) == near.end()) near.push_back(key);
  };
  for (const auto& leaf : nearest_names(std::string(leaf_of(name)), leaves, 3)) {
    for (size_t i = 0; i < known.size(); ++i) {
      if (leaves[i] == leaf) add(known[i]);
    }
  }
  const std::string whole = nearest_key(name, known);
  if (!whole.empty()) add(whole);
  return near;
}

template <class T>
std::string list_text(const std::vector<T>& list) {
  if (list.empty()) return "none";
  std::string text;
  for (const T& element : list) {
    if (!text.empty()) text += '+';
    if constexpr (std::is_enum_v<T>)
      text += name_of(element);
    else
      text += std::to_string(element);
  }
  return text;
}

}  // namespace

std::string_view leaf_of(std::string_view key) { return key.substr(key.rfind('.') + 1); }

std::string full_key(const std::string& name, const std::string& flag) {
  Config config;
  std::vector<std::string> known, matching;
  for (const Field& field : fields_of(config)) {
    if (field.key == name) return name;
    if (field.leaf() == name) matching.push_back(field.key);
    known.push_back(field.key);
  }
  if (matching.size() == 1) return matching.front();
  if (!matching.empty()) {
    throw UsageError(flag + " " + shown(name) + ": is the end of " + std::to_string(matching.size()) +
                     " keys; write " + alternatives(matching));
  }
  const auto near = suggestions(name, known);
  throw UsageError(
      flag + " " + shown(name) + ": no such key; " +
      (near.empty() ? "`hax config explain` lists them" : "did you mean " + alternatives(near) + "?"));
}

KeyValue value_of_key(const Config& config, const std::string& key) {
  Config copy = config;
  for (const Field& field : fields_of(copy)) {
    if (field.key != key) continue;
    return std::visit(
        [&](auto* pointer) -> KeyValue {
          using T = std::remove_pointer_t<decltype(pointer)>;
          if constexpr (std::is_same_v<T, std::string>) {
            return {*pointer, std::nullopt};
          } else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>) {
            return {field.text(), static_cast<double>(*pointer)};
          } else if constexpr (is_list<T>) {
            return {list_text(*pointer), std::nullopt};
          } else {
            return {field.text(), std::nullopt};
          }
        },
        field.value);
  }
  throw std::invalid_argument("value_of_key: no field " + key);
}

bool changes_results(std::string_view key) {
  return std::find(kWithoutEffect.begin(), kWithoutEffect.end(), key) == kWithoutEffect.end();
}

}  // namespace hax
