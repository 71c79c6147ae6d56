// "Did you mean ...?": the known names that a misspelt one may stand for.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace hax {

// Insertions, deletions, substitutions and swaps of neighbours that turn a into b.
size_t edit_distance(std::string_view a, std::string_view b);

// Up to `count` of the candidates, nearest first (edit distance; ties keep the candidates' order),
// none farther than a third of the longer name's length, nor than 8 edits.
std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& candidates,
                                       size_t count);

}  // namespace hax
