#include "lib/model/token_codes.h"

#include <algorithm>
#include <bit>

#include "lib/base/error.h"
#include "lib/base/random.h"

namespace hax {
namespace {

// At least one bit: a slot of one token still has to be seen as written.
int64_t bits_of(int64_t n) { return std::max<int64_t>(1, std::bit_width(static_cast<uint64_t>(n - 1))); }

// Feature f of code i is the parity of i & masks[f]: first every bit by itself, then random subsets. They
// are part of the construction, so the same for every seed of a run.
std::vector<uint32_t> parity_masks(int64_t bits, int64_t width, uint32_t slot) {
  std::vector<uint32_t> masks;
  for (int64_t b = 0; b < bits; ++b) masks.push_back(uint32_t{1} << b);
  RandomStream random({.seed = 0, .purpose = Purpose::init, .index = slot});
  while (static_cast<int64_t>(masks.size()) < width) {
    masks.push_back(1 + random.below((uint32_t{1} << bits) - 1));
  }
  return masks;
}

}  // namespace

TokenCodes::TokenCodes(const DataSpec& data, int64_t d_model, at::Device device)
    : d_model_(d_model), vocab_size_(data.vocab_size), device_(device) {
  const auto levels = static_cast<int64_t>(data.slots.size()) - 1;
  bool sound = levels >= 1;
  for (int64_t i = 0; i <= levels; ++i) sound = sound && data.slots[i].is_value == (i == levels);
  if (!sound) {
    throw UsageError(
        "model.mixer = constructive needs data that say which token ids are keys and values; '" + data.task +
        "' does not: choose joint_recall, multilevel_joint_recall, noisy_joint_recall or mqar, and "
        "generate a dataset of theirs that is older again (hax gen-data)");
  }
  int64_t at = 0;
  for (const TokenSlot& ids : data.slots) {
    const int64_t width = bits_of(ids.count) * (ids.is_value ? 1 : kLevelExpansion);
    slots_.push_back({ids, at, at + width});
    at += width;
  }
  if (width() > d_model) {
    throw UsageError("model.d_model = " + std::to_string(d_model) +
                     ": model.mixer = constructive needs at least " + std::to_string(width()) +
                     " features for the codes of this table's tokens; raise model.d_model");
  }
}

at::Tensor TokenCodes::embedding() const {
  at::Tensor table = at::zeros({vocab_size_, d_model_}, at::kFloat);
  auto features = table.accessor<float, 2>();
  for (size_t s = 0; s < slots_.size(); ++s) {
    const Slot& slot = slots_[s];
    const auto masks = parity_masks(bits_of(slot.ids.count), slot.end - slot.begin, static_cast<uint32_t>(s));
    for (int64_t i = 0; i < slot.ids.count; ++i) {
      const int64_t token = slot.ids.first + i;
      for (size_t f = 0; f < masks.size(); ++f) {
        const bool odd = std::popcount(static_cast<uint32_t>(i) & masks[f]) % 2 == 1;
        features[token][slot.begin + static_cast<int64_t>(f)] = odd ? 1.0f : -1.0f;
      }
      features[token][width() - 1] = slot.ids.is_value ? 1.0f : -1.0f;
    }
  }
  return table;
}

at::Tensor TokenCodes::mask(int64_t begin, int64_t end) const {
  at::Tensor mask = at::zeros({d_model_}, at::TensorOptions(at::kFloat).device(device_));
  mask.slice(0, begin, end).fill_(1.0);
  return mask;
}

}  // namespace hax
