// How much a model remembers while decoding, measured on a real example.
#pragma once

#include <optional>

#include "lib/data/example.h"
#include "lib/model/language_model.h"

namespace hax {

struct MeasuredState {
  StateBytes bytes;
  int64_t tokens = 0;  // decoded before the count
};

// Decodes the longest of `examples` (the first of equals), at most kMeasuredTokens of it, and counts what is
// then held, in the types that `compute` asks for. Nothing when the model cannot decode (decoding_fault).
constexpr int64_t kMeasuredTokens = 32768;
std::optional<MeasuredState> measure_state(const LanguageModel& model, const Draws& draws,
                                           const ExampleSource& examples, at::ScalarType compute);

}  // namespace hax
