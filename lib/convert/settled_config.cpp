#include "lib/convert/settled_config.h"

#include <algorithm>
#include <stdexcept>

#include "lib/base/error.h"
#include "lib/config/fields.h"
#include "lib/config/names.h"

namespace hax {
namespace {

int64_t& integer_field(Config& config, const std::string& key) {
  for (const Field& field : fields_of(config)) {
    if (field.key == key) return **std::get_if<int64_t*>(&field.value);
  }
  throw std::invalid_argument("SettledConfig: there is no key " + key);
}

std::string text_of(const std::vector<MixerKind>& mixers) {
  std::string text;
  for (const MixerKind kind : mixers) text += (text.empty() ? "" : ", ") + std::string(name_of(kind));
  return "[" + text + "]";
}

// The shortest list that gives the same layers in turn.
std::vector<MixerKind> in_turn(const std::vector<MixerKind>& layers) {
  for (size_t period = 1;; ++period) {
    bool repeats = true;
    for (size_t i = period; i < layers.size(); ++i) repeats = repeats && layers[i] == layers[i - period];
    if (repeats)
      return {layers.begin(), layers.begin() + static_cast<int64_t>(std::min(period, layers.size()))};
  }
}

}  // namespace

void SettledConfig::refuse(const std::string& key, const std::string& given, const std::string& found) const {
  if (given_by_.empty()) {
    throw UsageError(key + " = " + given + " is given, but " + source_ + " says " + found +
                     "; leave the key out");
  }
  throw DataError(given_by_ + ": gives " + key + " = " + given + ", but " + source_ + " says " + found);
}

void SettledConfig::set(const std::string& key, int64_t value) {
  Config defaults;
  int64_t& field = integer_field(config_, key);
  const bool given = !given_by_.empty() || field != integer_field(defaults, key);
  if (given && field != value) refuse(key, std::to_string(field), std::to_string(value));
  field = value;
}

void SettledConfig::set_mixers(const std::vector<MixerKind>& layers) {
  set("model.layers", static_cast<int64_t>(layers.size()));
  bool same = true;
  for (size_t i = 0; i < layers.size(); ++i) {
    same = same && config_.model.mixer_of(static_cast<int64_t>(i)) == layers[i];
  }
  if (same) return;
  const bool given = !given_by_.empty() || config_.model.mixer != ModelConfig().mixer;
  if (given) refuse("model.mixer", text_of(config_.model.mixer), text_of(layers));
  config_.model.mixer = in_turn(layers);
}

void SettledConfig::propose(const std::string& key, int64_t value) {
  Config defaults;
  int64_t& field = integer_field(config_, key);
  if (field == integer_field(defaults, key)) field = value;
}

}  // namespace hax
