// Joint recall, the dataset of arXiv 2507.00449 (official code: HAX, scripts/create_dataset.py).
//
// A table of n_context x n_key values, each uniform over n_value. Sequence: BOS; every context in random
// order, each followed by its keys in random order, each followed by its value; SEP; the whole table once
// more under fresh permutations. The keys of the second half are scored; the answer is the next token.
//
//   ids   BOS 1, PAD 3, SEP 4, value v -> 10 + v, key j -> 10 + n_value + j,
//         context c -> 10 + n_value + n_key_max + c
//   sizes every (n_context, n_key) of the ranges in turn, n_key running fastest
//   draws table row by row; then for each half the order of contexts, then keys of each context in it
#pragma once

#include "data_gen/task.h"
#include "lib/config/config.h"

namespace hax {

class JointRecall : public Task {
 public:
  static constexpr int32_t kBos = 1;
  static constexpr int32_t kPad = 3;
  static constexpr int32_t kSeparator = 4;
  static constexpr int32_t kBias = 10;
  static constexpr int64_t kPaperVocabulary = 100;

  explicit JointRecall(const JointRecallConfig& config);  // throws UsageError naming the key

  const DataSpec& spec() const override { return spec_; }
  std::string parameters() const override;
  int64_t sizes() const override;
  std::string size_name(int64_t size) const override;
  double log2_distinct(int64_t size) const override;
  void example(RandomStream& random, int64_t index, Example& result) const override;
  std::string fault(const Example& example) const override;
  std::vector<Role> roles(const Example& example) const override;
  std::string symbol(int32_t token, Role role) const override;
  std::vector<int32_t> oracle(const Example& example) const override;
  std::vector<int32_t> sources(const Example& example) const override;
  // A value that the right key has in another context; one that the right context has for another key; any
  // other value; none.
  std::vector<std::string> error_kinds() const override;
  size_t error_kind(const Example& example, size_t i, int32_t predicted) const override;

  const JointRecallConfig& config() const { return config_; }
  // The table's size as the tokens of the first half tell it; {0, 0} when they do not.
  struct Size {
    int64_t n_context = 0;
    int64_t n_key = 0;
  };
  Size size_of(const std::vector<int32_t>& tokens) const;
  Size size(int64_t size) const;  // 0 <= size < sizes()
  // Ascending positions of the second half's keys in an example of this size.
  static std::vector<int32_t> scored_positions(Size size);

 private:
  // The table as a reader meets it. Entries are numbered context * n_key_max + key.
  struct Reading {
    std::vector<int32_t> position;  // (entries) of the value in the first half; -1: not given
    std::vector<int64_t> asked;     // (scored) the entry in question; -1: no key stands there
  };
  Reading read(const Example& example) const;
  bool is_value(int32_t token) const { return token >= kBias && token < kBias + config_.n_value; }
  bool is_key(int32_t token) const { return token >= first_key_ && token < first_key_ + config_.n_key_max; }
  bool is_context(int32_t token) const {
    return token >= first_context_ && token < first_context_ + config_.n_context_max;
  }

  JointRecallConfig config_;  // vocab_size resolved
  DataSpec spec_;
  int32_t first_key_;
  int32_t first_context_;
};

}  // namespace hax
