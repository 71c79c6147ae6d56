// Codes of the constructive solution (spec section 5): what every token id says about a recall table, as an
// embedding that is written down rather than trained.
//
// Features [level_1 | ... | level_w | value | is_value | 0 ...], a slot for each of the data's token slots.
// A token fills the slot of its own kind with its code and says is_value = -1 (levels) or +1 (values); every
// other feature is 0, and so is all of a token that is none of these (BOS, SEP, noise). The code of number i
// of a slot of n has no zero entry: its b = ceil(log2 n) bits as +-1, and in levels (kLevelExpansion - 1) b
// parities of random subsets of them. The bits alone tell tokens apart; the parities keep codes of numbers
// that differ in one bit from being neighbours, which an LSH would put into one bin. So widths are O(log n).
#pragma once

#include <cstdint>
#include <vector>

#include "lib/data/example.h"
#include "lib/ops/torch.h"

namespace hax {

class TokenCodes {
 public:
  static constexpr int64_t kLevelExpansion = 3;

  // Throws UsageError when `data` names no slots (one level or more, then one of values), or when its codes
  // need more than d_model features.
  TokenCodes(const DataSpec& data, int64_t d_model, at::Device device);

  int64_t width() const { return slots_.back().end + 1; }  // features in use
  at::Device device() const { return device_; }            // where the model lives

  at::Tensor embedding() const;  // (vocab_size, d_model), fp32, CPU: -1, 0 and 1
  // (d_model) fp32 on the device, 1 at these features and 0 elsewhere.
  at::Tensor level_mask() const { return mask(0, slots_.back().begin); }
  at::Tensor value_mask() const { return mask(slots_.back().begin, slots_.back().end); }
  at::Tensor is_value_mask() const { return mask(slots_.back().end, width()); }

 private:
  struct Slot {
    TokenSlot ids;
    int64_t begin, end;
  };
  at::Tensor mask(int64_t begin, int64_t end) const;

  int64_t d_model_, vocab_size_;
  at::Device device_;
  std::vector<Slot> slots_;  // the values' last
};

}  // namespace hax
