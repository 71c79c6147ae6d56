// Draws made on a GPU for the number that stands there: a captured graph draws anew at each replay. Built
// with HAX_CUDA.
#pragma once

#include "lib/model/draws.h"

namespace hax {

// PhiloxDraws of training, for the step that stands at `step`. Throws ops::NeedsHostLengths for a sample
// larger than the kernel's.
class DeviceTrainingDraws : public Draws {
 public:
  DeviceTrainingDraws(uint64_t seed, bool fill_with_pad, int noise_bits, at::Tensor step);
  bool training() const override { return true; }
  at::Tensor hash_matrix(int64_t layer, int64_t d, int64_t h) const override;
  at::Tensor sampled_positions(int64_t layer, int64_t k, const ops::PackedLayout& layout) const override;

 private:
  uint64_t seed_;
  bool fill_with_pad_;
  int noise_bits_;
  at::Tensor step_;
};

// EvaluationDraws: the stored matrices, which lie on the device, or without them fresh ones for the batch
// whose number stands at `batch`.
class DeviceEvaluationDraws : public Draws {
 public:
  DeviceEvaluationDraws(uint64_t seed, std::vector<at::Tensor> stored, at::Tensor batch);
  bool training() const override { return false; }
  at::Tensor hash_matrix(int64_t layer, int64_t d, int64_t h) const override;
  at::Tensor sampled_positions(int64_t layer, int64_t k, const ops::PackedLayout& layout) const override;

 private:
  uint64_t seed_;
  std::vector<at::Tensor> stored_;
  at::Tensor batch_;
};

}  // namespace hax
