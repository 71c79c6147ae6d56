#include "lib/config/nearest.h"

#include <algorithm>

#include "lib/base/nearest.h"
#include "lib/config/lookup.h"

namespace hax {

namespace {

constexpr size_t kLongest = 200;  // no known name comes near; keeps the quadratic distance cheap

size_t allowed_distance(std::string_view name, std::string_view candidate) {
  return std::max(name.size(), candidate.size()) / 2;
}

}  // namespace

std::string nearest_key(std::string_view key, const std::vector<std::string>& known) {
  std::string best;
  size_t best_score = 0;
  if (key.size() > kLongest) return best;
  const std::string_view leaf = leaf_of(key);
  const std::string_view parent = key.substr(0, key.size() - leaf.size());
  for (const std::string& candidate : known) {
    const std::string_view candidate_leaf = leaf_of(candidate);
    // No spelling is nearer than the lengths are: most keys are passed over without the quadratic work.
    const size_t allowed = allowed_distance(leaf, candidate_leaf);
    const size_t least =
        std::max(leaf.size(), candidate_leaf.size()) - std::min(leaf.size(), candidate_leaf.size());
    if (least > allowed || (!best.empty() && 1000 * least > best_score)) continue;
    const size_t distance = edit_distance(leaf, candidate_leaf);
    if (distance > allowed || (!best.empty() && 1000 * distance > best_score)) continue;
    // Among equal spellings the key whose section is nearest; a wrong section weighs less than a wrong
    // letter.
    const size_t score = 1000 * distance +
                         edit_distance(parent, candidate.substr(0, candidate.size() - candidate_leaf.size()));
    if (!best.empty() && score >= best_score) continue;
    best = candidate;
    best_score = score;
  }
  return best;
}

}  // namespace hax
