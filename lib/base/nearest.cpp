#include "lib/base/nearest.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace hax {
namespace {

constexpr size_t farthest = 8;
constexpr size_t longest = 256;  // names are shorter; what is not is refused before it costs quadratic time

size_t allowed_distance(std::string_view a, std::string_view b) {
  return std::min(farthest, std::max(a.size(), b.size()) / 3);
}

}  // namespace

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), previous(b.size() + 1), row(b.size() + 1);
  std::iota(previous.begin(), previous.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, previous);
    std::swap(previous, row);
  }
  return previous.back();
}

std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& candidates,
                                       size_t count) {
  std::vector<std::pair<size_t, const std::string*>> near;
  for (const std::string& candidate : candidates) {
    if (std::max(name.size(), candidate.size()) > longest) continue;
    const size_t distance = edit_distance(name, candidate);
    if (distance <= allowed_distance(name, candidate)) near.emplace_back(distance, &candidate);
  }
  std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (const auto& [distance, candidate] : near) {
    if (names.size() == count) break;
    names.push_back(*candidate);
  }
  return names;
}

}  // namespace hax
