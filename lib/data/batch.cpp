#include <algorithm>
#include <stdexcept>

#include "lib/data/example.h"

namespace hax {

int64_t Batch::max_seqlen() const {
  int64_t longest = 0;
  for (size_t b = 0; b + 1 < cu_seqlens.size(); ++b) {
    longest = std::max<int64_t>(longest, cu_seqlens[b + 1] - cu_seqlens[b]);
  }
  return longest;
}

Batch empty_batch(const DataSpec& spec) {
  Batch batch;
  batch.cu_seqlens = {0};
  batch.cu_scored = {0};
  batch.padded_length = spec.input_length();
  return batch;
}

void append(const DataSpec& spec, const Example& example, Batch& batch) {
  const auto length = static_cast<int64_t>(example.tokens.size());
  if (length > spec.padded_tokens) {
    throw std::invalid_argument("append: an example of " + std::to_string(length) +
                                " tokens, longer than the " + std::to_string(spec.padded_tokens) +
                                " of its data spec");
  }
  if (example.scored.size() != example.targets.size() || example.slices.size() != spec.slice_columns.size()) {
    throw std::invalid_argument("append: an example with " + std::to_string(example.scored.size()) +
                                " scored positions, " + std::to_string(example.targets.size()) +
                                " targets and " + std::to_string(example.slices.size()) + " slices");
  }
  const int64_t kept = std::min(length, spec.input_length());
  const int32_t start = batch.cu_seqlens.back();
  for (size_t i = 0; i < example.scored.size(); ++i) {
    const int32_t position = example.scored[i];
    if (position < 0 || position >= kept) {
      throw std::invalid_argument("append: scored position " + std::to_string(position) +
                                  " outside the model's " + std::to_string(kept) + " tokens");
    }
    batch.scored.push_back(start + position);
  }
  batch.tokens.insert(batch.tokens.end(), example.tokens.begin(), example.tokens.begin() + kept);
  batch.targets.insert(batch.targets.end(), example.targets.begin(), example.targets.end());
  batch.slices.insert(batch.slices.end(), example.slices.begin(), example.slices.end());
  batch.cu_seqlens.push_back(start + static_cast<int32_t>(kept));
  batch.cu_scored.push_back(static_cast<int32_t>(batch.scored.size()));
}

}  // namespace hax
