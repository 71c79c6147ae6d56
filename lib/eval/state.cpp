#include "lib/eval/state.h"

#include <algorithm>

#include "lib/data/batches.h"

namespace hax {

std::optional<MeasuredState> measure_state(const LanguageModel& model, const Draws& draws,
                                           const ExampleSource& examples, at::ScalarType compute) {
  if (!decoding_fault(model.config()).empty()) return std::nullopt;
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < examples.size(); ++i) {
    Batch batch = consecutive_batch(examples, i, i + 1);
    if (batch.tokens.size() > tokens.size()) tokens = std::move(batch.tokens);
  }
  tokens.resize(std::min<size_t>(tokens.size(), kMeasuredTokens));
  return MeasuredState{model.state_after(tokens, draws, compute), static_cast<int64_t>(tokens.size())};
}

}  // namespace hax
