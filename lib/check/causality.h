// Does a model look ahead? Later tokens are changed, and whatever belongs to earlier ones must stay as it is.
//
// Each layer is looked at alone: both runs of it read the same rows up to the change and differ behind it, so
// a layer is blamed for its own leaks and not for those below. Within a layer, each pattern's decisions are
// compared (what they were made from, and the keys that they allow), and then the layer's output.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/check/check_result.h"
#include "lib/model/language_model.h"

namespace hax {

struct Leak {
  int64_t layer;
  std::string part;  // a pattern's name, "queries without a key", or a mixer's name
  bool expected;     // by the definition of `paper` statistics
  double change;     // relative to the largest value of its kind
};

// x (T, d_model) -> what the mixer of a layer gives.
using LayerFunction = std::function<MixerOutput(const at::Tensor& x)>;

// The leaks of one layer: x and `other` are equal up to position `last` of every sequence.
std::vector<Leak> layer_leaks(int64_t layer, const std::string& mixer, const LayerFunction& forward,
                              Statistics mode, const at::Tensor& x, const at::Tensor& other, int64_t last,
                              const ops::PackedLayout& layout);

// All layers, then the logits, at two places of change in examples of `batch`.
CheckResult check_causality(const LanguageModel& model, const Batch& batch);

}  // namespace hax
