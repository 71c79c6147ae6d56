// Multi-query associative recall (Arora et al., "Zoology", ICLR 2024; zoology/data/multiquery_ar.py).
//
// K = num_kv_pairs distinct keys of [1, V/2) and distinct values of [V/2, V) open the sequence as
// k0 v0 k1 v1 ..., C = 2K tokens. Behind them lie S = (L - C)/2 query slots, slot g at position C + 2g,
// with weights (g + 1)^(power_a - 1). K slots are drawn without replacement, one after the other: the
// i-th drawn asks for key i, so that early keys tend to be asked early. The label at a slot is the key's
// value; answers never enter the input. Every other token after the context is 0, or, under
// random_non_queries, uniform over [0, V).
//
// Order of draws: keys, values, slots, fillers. Fillers come last, so pairs and labels are the same with
// and without random_non_queries.
#pragma once

#include "data_gen/task.h"
#include "lib/config/config.h"

namespace hax {

class Mqar : public Task {
 public:
  explicit Mqar(const MqarConfig& config);  // throws UsageError naming the key

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
  // A value of another key of the context; any other value; none.
  std::vector<std::string> error_kinds() const override;
  size_t error_kind(const Example& example, size_t i, int32_t predicted) const override;

  const MqarConfig& config() const { return config_; }

 private:
  int64_t context_length() const { return 2 * config_.num_kv_pairs; }
  int64_t slots() const { return (config_.input_seq_len - context_length()) / 2; }

  MqarConfig config_;
  DataSpec spec_;
  std::vector<double> mean_wait_;  // (slots) 1 / weight
};

}  // namespace hax
