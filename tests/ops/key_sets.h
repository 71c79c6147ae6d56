// Key sets of every kind over random hashes and scores.
#pragma once

#include <string>
#include <vector>

#include "lib/ops/key_selection.h"
#include "lib/ops/lsh.h"
#include "tests/ops/tensors.h"

namespace hax::test {

struct NamedMembership {
  std::string name;
  ops::Membership membership;
};

// One membership of each kind, with the same width. Half of the scores are equal to others.
inline std::vector<NamedMembership> all_memberships(const ops::PackedLayout& layout, int64_t width,
                                                    uint32_t seed) {
  constexpr int64_t kBins = 4;
  const auto device = layout.position.device();
  const at::Tensor query_bin = random_below(kBins, {layout.total()}, seed).to(device);
  const at::Tensor key_bin = random_below(kBins, {layout.total()}, seed + 1).to(device);
  const at::Tensor scores =
      random_below(layout.max_seqlen / 2 + 1, {layout.total()}, seed + 2).to(device, at::kFloat);
  return {{"full", ops::FullMembership{}},
          {"sliding_window", ops::WindowMembership{width}},
          {"sink", ops::SinkMembership{width}},
          {"dilated", ops::DilatedMembership{width}},
          {"lsh", ops::lsh_membership(query_bin, key_bin, kBins, width, layout)},
          {"key_selection", ops::cumulative_topk(scores, width, layout)}};
}

struct NamedKeySet {
  std::string name;
  ops::KeySet keys;
};

// Nothing, every membership, and every pair of them.
inline std::vector<NamedKeySet> all_key_sets(const ops::PackedLayout& layout, int64_t width,
                                             ops::EmptyRow empty_row, uint32_t seed) {
  const auto parts = all_memberships(layout, width, seed);
  std::vector<NamedKeySet> sets{{"nothing", {{}, empty_row}}};
  for (size_t a = 0; a < parts.size(); ++a) {
    sets.push_back({parts[a].name, {{parts[a].membership}, empty_row}});
    for (size_t b = a + 1; b < parts.size(); ++b) {
      sets.push_back(
          {parts[a].name + "+" + parts[b].name, {{parts[a].membership, parts[b].membership}, empty_row}});
    }
  }
  return sets;
}

}  // namespace hax::test
