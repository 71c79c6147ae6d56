// Induction heads (Olsson et al. 2022, in the form of the Mamba paper, arXiv 2312.00752, section 4.1.2): the
// special token occurs once among ordinary ones, and once more at the end, where the token that followed it
// is asked for.
//
// The first occurrence is uniform over the positions 0 .. length - 3, the ordinary tokens are uniform and
// independent. The answer is a label; it does not stand behind the end.
//
//   ids   special 4, ordinary token t -> 10 + t
//   draws position of the first special token; ordinary tokens from left to right
#pragma once

#include "data_gen/task.h"
#include "lib/config/config.h"

namespace hax {

class InductionHeads : public Task {
 public:
  static constexpr int32_t kSpecial = 4;
  static constexpr int32_t kBias = 10;

  explicit InductionHeads(const InductionHeadsConfig& config);  // throws UsageError naming the key

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
  // The token before the special one, which a head that is off by two finds; any other ordinary one; none.
  std::vector<std::string> error_kinds() const override;
  size_t error_kind(const Example& example, size_t i, int32_t predicted) const override;

 private:
  bool is_ordinary(int32_t token) const { return token >= kBias && token < kBias + config_.n_token; }

  InductionHeadsConfig config_;
  DataSpec spec_;
};

}  // namespace hax
