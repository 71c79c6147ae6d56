// Multi-level joint recall (arXiv 2507.00449, appendix C): joint recall with contexts inside contexts.
//
// Levels 1 .. w have n_1 .. n_w symbols; those of level w are the keys. A table has a value for each of the
// n_1 ... n_w paths, uniform over n_value. Sequence: BOS; the nested blocks, where a symbol of level l < w is
// followed by the whole of level l + 1 and a key by its value, in random order at every level; SEP; the same
// under fresh permutations. The keys of the second half are scored; the answer is the next token. One level
// is associative recall; two are joint recall of one size, example for example on equal streams.
//
//   ids   BOS 1, PAD 3, SEP 4, value v -> 10 + v; then the symbols of level w, w - 1, ..., 1
//   draws table in order of paths; then for each half, from the outside in, the order of each block's symbols
#pragma once

#include "data_gen/task.h"
#include "lib/config/config.h"

namespace hax {

class MultilevelJointRecall : public Task {
 public:
  explicit MultilevelJointRecall(
      const MultilevelJointRecallConfig& config);  // throws UsageError, with the key

  const DataSpec& spec() const override { return spec_; }
  std::string parameters() const override;
  int64_t sizes() const override { return 1; }
  std::string size_name(int64_t size) const override;
  double log2_distinct(int64_t size) const override;
  void example(RandomStream& random, int64_t index, Example& result) const override;
  std::string fault(const Example& example) const override;
  std::vector<Role> roles(const Example& example) const override;
  std::string symbol(int32_t token, Role role) const override;
  std::vector<int32_t> oracle(const Example& example) const override;
  std::vector<int32_t> sources(const Example& example) const override;
  // A value that the right key has on another path of contexts; one that the right path has for another key;
  // any other value; none.
  std::vector<std::string> error_kinds() const override;
  size_t error_kind(const Example& example, size_t i, int32_t predicted) const override;

 private:
  // The table as a reader meets it, entries in order of paths.
  struct Reading {
    std::vector<int32_t> position;  // (entries) of the value in the first half; -1: not given
    std::vector<int64_t> asked;     // (scored) the entry in question; -1: no key stands there
  };
  Reading read(const Example& example) const;

  int64_t levels() const { return static_cast<int64_t>(config_.levels.size()); }
  int64_t level_of(int32_t token) const;  // -1: the token is of none
  bool is_value(int32_t token) const;
  // Writes the blocks of `level` inside the path that `entry` begins with, and everything in them.
  void write(RandomStream& random, size_t level, int64_t entry, const std::vector<int32_t>& table,
             std::vector<int32_t>& tokens, std::vector<int32_t>* scored) const;

  MultilevelJointRecallConfig config_;  // vocab_size resolved
  DataSpec spec_;
  std::vector<int32_t> first_id_;  // (levels) of each level's symbols
  std::vector<int64_t> below_;     // (levels) entries inside one symbol of the level; 1 for keys
  int64_t entries_ = 1;
};

}  // namespace hax
