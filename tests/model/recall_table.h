// Multi-level joint recall for models (paper, appendix C): a table with w levels of names, all of it told and
// then all of it asked, each time in a fresh order at every level. Independent of the tasks of data_gen.
#pragma once

#include <numeric>

#include "lib/base/random.h"
#include "lib/data/example.h"

namespace hax::test {

class RecallTable {
 public:
  // Ids: BOS 0, SEP 1, then values, then levels from the last (keys) to the first.
  RecallTable(std::vector<int64_t> sizes, int64_t n_value) : sizes_(std::move(sizes)), n_value_(n_value) {
    auto next = static_cast<int32_t>(2 + n_value);
    for (size_t l = sizes_.size(); l-- > 0; next += static_cast<int32_t>(sizes_[l])) {
      spec_.slots.insert(spec_.slots.begin(), {"level", next, static_cast<int32_t>(sizes_[l]), false});
      half_ = (half_ == 0 ? 2 : 1 + half_) * sizes_[l];
    }
    spec_.slots.push_back({"value", 2, static_cast<int32_t>(n_value), true});
    spec_.task = "table";
    spec_.vocab_size = next;
    spec_.padded_tokens = 2 * half_ + 2;
  }

  const DataSpec& spec() const { return spec_; }
  int64_t entries() const {
    return std::accumulate(sizes_.begin(), sizes_.end(), int64_t{1}, std::multiplies<>());
  }

  Example example(uint32_t index) const {
    RandomStream random({.seed = 1, .purpose = Purpose::test, .index = index});
    std::vector<int32_t> table(entries());
    for (int32_t& value : table) value = static_cast<int32_t>(2 + random.below(n_value_));
    Example e;
    for (const bool asking : {false, true}) {
      e.tokens.push_back(asking ? 1 : 0);
      tell(random, table, 0, 0, asking, e);
    }
    return e;
  }

 private:
  void tell(RandomStream& random, const std::vector<int32_t>& table, size_t level, int64_t entry, bool asking,
            Example& e) const {
    std::vector<int32_t> order(sizes_[level]);
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = order.size(); i > 1; --i)
      std::swap(order[i - 1], order[random.below(static_cast<uint32_t>(i))]);
    for (const int32_t name : order) {
      const int64_t at = entry * sizes_[level] + name;
      e.tokens.push_back(spec_.slots[level].first + name);
      if (level + 1 < sizes_.size()) {
        tell(random, table, level + 1, at, asking, e);
        continue;
      }
      if (asking) {
        e.scored.push_back(static_cast<int32_t>(e.tokens.size()) - 1);
        e.targets.push_back(table[at]);
      }
      e.tokens.push_back(table[at]);
    }
  }

  std::vector<int64_t> sizes_;
  uint32_t n_value_;
  int64_t half_ = 0;
  DataSpec spec_;
};

}  // namespace hax::test
