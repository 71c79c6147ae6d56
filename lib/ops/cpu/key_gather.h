// The keys of each query of a sequence, in the order of its memberships and each key once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lib/ops/cpu/sparse_attention.h"

namespace hax::cpu {

class KeyGather {
 public:
  explicit KeyGather(const std::vector<KeyRule>& rules)
      : rules_(rules), bins_(rules.size()), chosen_(rules.size()) {}

  // Starts the sequence of rows [base, base + length).
  void start(int64_t base, int64_t length) {
    base_ = base;
    next_query_ = 0;
    stamp_.assign(length, -1);
    keys_.resize(length);
    for (size_t r = 0; r < rules_.size(); ++r) {
      chosen_[r].clear();
      if (rules_[r].kind == KeyRule::Kind::lsh) sort_into_bins(rules_[r], length, bins_[r]);
    }
  }

  // The keys of the next query, as rows of the tensors; valid until the next call.
  const std::vector<int64_t>& next() {
    const int64_t i = next_query_++;
    keys_.clear();
    for (size_t r = 0; r < rules_.size(); ++r) {
      const KeyRule& rule = rules_[r];
      switch (rule.kind) {
        case KeyRule::Kind::full:
          add_range(0, i + 1, 1, i);
          break;
        case KeyRule::Kind::window:
          add_range(std::max<int64_t>(0, i + 1 - rule.width), i + 1, 1, i);
          break;
        case KeyRule::Kind::sink:
          add_range(0, std::min(rule.width, i + 1), 1, i);
          break;
        case KeyRule::Kind::dilated:
          add_range(rule.width - 1, i + 1, rule.width, i);
          break;
        case KeyRule::Kind::lsh:
          add_bin(rule, bins_[r], i);
          break;
        case KeyRule::Kind::topk:
          add_chosen(rule, chosen_[r], i);
          break;
      }
    }
    return keys_;
  }

 private:
  // A sequence's keys by (bin, rank). first[bin] is where the bin's keys start.
  struct Bins {
    std::vector<int64_t> first, keys;
    std::vector<int64_t> touched;  // bins that hold keys
  };

  void add(int64_t j, int64_t i) {
    if (stamp_[j] == i) return;
    stamp_[j] = i;
    keys_.push_back(base_ + j);
  }
  void add_range(int64_t first, int64_t end, int64_t step, int64_t i) {
    for (int64_t j = first; j < end; j += step) add(j, i);
  }

  void sort_into_bins(const KeyRule& rule, int64_t length, Bins& bins) const {
    // `first` holds -1 for bins without keys. It grows to the largest bin met and is cleared by its traces.
    for (int64_t bin : bins.touched) bins.first[bin] = -1;
    bins.touched.clear();
    bins.keys.resize(length);
    const int64_t* key_bin = rule.key_bin + base_;
    const int64_t largest = *std::max_element(key_bin, key_bin + length);
    if (largest >= static_cast<int64_t>(bins.first.size())) bins.first.resize(largest + 1, -1);
    // Sizes first (as -1 - size), then starts.
    for (int64_t j = 0; j < length; ++j) {
      int64_t& entry = bins.first[key_bin[j]];
      if (entry == -1) bins.touched.push_back(key_bin[j]);
      --entry;
    }
    int64_t start = 0;
    for (int64_t bin : bins.touched) {
      const int64_t size = -1 - bins.first[bin];
      bins.first[bin] = start;
      start += size;
    }
    for (int64_t j = 0; j < length; ++j) bins.keys[bins.first[key_bin[j]] + rule.rank[base_ + j]] = j;
  }

  void add_bin(const KeyRule& rule, const Bins& bins, int64_t i) {
    const int64_t bin = rule.query_bin[base_ + i], count = rule.count[base_ + i];
    if (count == 0) return;
    const int64_t* keys = bins.keys.data() + bins.first[bin];
    for (int64_t rank = std::max<int64_t>(0, count - rule.width); rank < count; ++rank) add(keys[rank], i);
  }

  void add_chosen(const KeyRule& rule, std::vector<int64_t>& chosen, int64_t i) {
    const int64_t* evicted = rule.evicted + base_;
    std::erase_if(chosen, [&](int64_t j) { return evicted[j] <= i; });
    if (evicted[i] > i) chosen.push_back(i);
    for (int64_t j : chosen) add(j, i);
  }

  const std::vector<KeyRule>& rules_;
  std::vector<Bins> bins_;
  std::vector<std::vector<int64_t>> chosen_;
  std::vector<int64_t> stamp_, keys_;
  int64_t base_ = 0, next_query_ = 0;
};

}  // namespace hax::cpu
