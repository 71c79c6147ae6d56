#include "lib/model/decoding.h"

#include <algorithm>

#include "lib/config/names.h"
#include "lib/model/patterns.h"

namespace hax {

StateBytes DecodingState::bytes() const {
  StateBytes sum;
  for (const auto& layer : layers) sum += layer->bytes();
  return sum;
}

std::string decoding_fault(const ModelConfig& config) {
  if (config.mode == Statistics::causal) return "";
  const auto& patterns = config.sparse.patterns;
  const auto has = [&](PatternKind kind) {
    return std::find(patterns.begin(), patterns.end(), kind) != patterns.end();
  };
  for (PatternKind kind : {PatternKind::lsh, PatternKind::key_selection}) {
    if (has(kind)) {
      return "model.mode = paper: " + std::string(name_of(kind)) +
             " centres and normalises over the whole padded sequence, which a decoder has not seen yet; "
             "model.mode = causal decodes";
    }
  }
  // Query 0 finds a key by any other pattern, or where every key is one of dilated's.
  bool empty_rows = has(PatternKind::dilated);
  for (size_t i = 0; i < patterns.size(); ++i) {
    const bool finds_own =
        patterns[i] != PatternKind::dilated || dilation_of(config.sparse, config.sparse.share(i)) == 1;
    if (finds_own) empty_rows = false;
  }
  if (empty_rows) {
    return "model.mode = paper: a query of dilated without any key attends to all positions, later ones "
           "included; model.mode = causal decodes";
  }
  return "";
}

}  // namespace hax
