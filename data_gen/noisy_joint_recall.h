// Joint recall at a chosen length: noise tokens stand between the parts of a joint-recall example.
//
// A joint-recall example (joint_recall.h) is drawn first. Then noise is put into the gaps of its first half,
// so that the model's input has exactly `length` tokens: before each context, before SEP and, under
// noise_in_blocks, before each key; never between a key and its value, and not in the second half, where
// questions and answers stand as in joint recall. Each noise token takes a gap uniformly and independently,
// so that gaps of any length occur. Cost and memory are linear in the length.
//
//   ids   as in joint recall; noise u -> 10 + n_value + n_key_max + n_context_max + u
//   draws those of joint recall; the gap of each noise token; the noise tokens from left to right
#pragma once

#include "data_gen/joint_recall.h"

namespace hax {

class NoisyJointRecall : public Task {
 public:
  explicit NoisyJointRecall(const NoisyJointRecallConfig& config);  // throws UsageError naming the key

  const DataSpec& spec() const override { return spec_; }
  std::string parameters() const override;
  int64_t sizes() const override { return table_.sizes(); }
  std::string size_name(int64_t size) const override { return table_.size_name(size); }
  double log2_distinct(int64_t size) const override;
  void example(RandomStream& random, int64_t index, Example& result) const override;
  std::string fault(const Example& example) const override;
  std::vector<Role> roles(const Example& example) const override;
  std::string symbol(int32_t token, Role role) const override;
  std::vector<int32_t> oracle(const Example& example) const override;
  std::vector<int32_t> sources(const Example& example) const override;
  // Those of joint recall; noise is no value.
  std::vector<std::string> error_kinds() const override { return table_.error_kinds(); }
  size_t error_kind(const Example& example, size_t i, int32_t predicted) const override;

 private:
  bool is_noise(int32_t token) const {
    return token >= first_noise_ && token < first_noise_ + config_.n_noise;
  }
  // May noise stand before this token of the first half?
  bool opens_gap(Role role) const {
    return role == Role::context || role == Role::separator || (config_.noise_in_blocks && role == Role::key);
  }
  // The example without its noise; positions[i] is where its token i stood.
  Example without_noise(const Example& example, std::vector<int32_t>& positions) const;

  NoisyJointRecallConfig config_;  // vocab_size resolved
  JointRecall table_;
  int32_t first_noise_;
  DataSpec spec_;
};

}  // namespace hax
