// Selective copying (Jing et al. 2019; in the form of the Mamba paper, arXiv 2312.00752, section 4.1.1): data
// tokens stand among noise, at random places, and are to be copied in their order.
//
// Sequence: `length` tokens, of which n_data at uniformly drawn places are data, each uniform over n_token,
// and the rest noise, each uniform over n_noise; SEP; the data tokens once more. SEP and all but the last of
// the copied tokens are scored; the answer is the next token.
//
//   ids   SEP 4, data d -> 10 + d, noise u -> 10 + n_token + u
//   draws from left to right, for each position whether it is data, then its token
#pragma once

#include "data_gen/task.h"
#include "lib/config/config.h"

namespace hax {

class SelectiveCopying : public Task {
 public:
  static constexpr int32_t kSeparator = 4;
  static constexpr int32_t kBias = 10;

  explicit SelectiveCopying(const SelectiveCopyingConfig& config);  // throws UsageError naming the key

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
  // A data token of the example, out of its turn; any other data token; none.
  std::vector<std::string> error_kinds() const override;
  size_t error_kind(const Example& example, size_t i, int32_t predicted) const override;

 private:
  bool is_data(int32_t token) const { return token >= kBias && token < kBias + config_.n_token; }
  bool is_noise(int32_t token) const {
    return token >= kBias + config_.n_token && token < kBias + config_.n_token + config_.n_noise;
  }

  SelectiveCopyingConfig config_;
  DataSpec spec_;
};

}  // namespace hax
