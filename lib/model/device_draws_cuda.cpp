#include <stdexcept>
#include <string>
#include <utility>

#include "lib/base/random.h"
#include "lib/model/device_draws.h"
#include "lib/ops/cuda/hash_matrix.h"
#include "lib/ops/cuda/key_selection.h"
#include "lib/ops/cuda_tensors.h"

namespace hax {
namespace {

uint32_t word(Purpose purpose, int64_t layer) {
  return static_cast<uint32_t>(purpose) | static_cast<uint32_t>(layer) << 8;
}

at::Tensor drawn_matrix(int64_t d, int64_t h, uint64_t seed, uint32_t purpose_and_layer,
                        const at::Tensor& step) {
  const at::Tensor matrix = at::empty({d, h}, step.options().dtype(at::kFloat));
  ops::cuda::hash_matrix(d * h, seed, purpose_and_layer, step.const_data_ptr<int64_t>(),
                         matrix.mutable_data_ptr<float>(), ops::cuda_stream());
  return matrix;
}

}  // namespace

DeviceTrainingDraws::DeviceTrainingDraws(uint64_t seed, bool fill_with_pad, int noise_bits, at::Tensor step)
    : seed_(seed), fill_with_pad_(fill_with_pad), noise_bits_(noise_bits), step_(std::move(step)) {}

at::Tensor DeviceTrainingDraws::hash_matrix(int64_t layer, int64_t d, int64_t h) const {
  return drawn_matrix(d, h, seed_, word(Purpose::hash_matrix, layer), step_);
}

at::Tensor DeviceTrainingDraws::sampled_positions(int64_t layer, int64_t k,
                                                  const ops::PackedLayout& layout) const {
  if (k > ops::cuda::kTopkMost)
    throw ops::NeedsHostLengths("a ranking sample of " + std::to_string(k) + " positions");
  const at::Tensor sampled = at::empty({layout.batch(), k}, step_.options());
  ops::cuda::sample_positions(
      ops::cuda_layout(layout), k,
      {seed_, word(Purpose::ranking_sample, layer), step_.const_data_ptr<int64_t>(), noise_bits_},
      fill_with_pad_, layout.padded_length, sampled.mutable_data_ptr<int64_t>(), ops::cuda_stream());
  return sampled;
}

DeviceEvaluationDraws::DeviceEvaluationDraws(uint64_t seed, std::vector<at::Tensor> stored, at::Tensor batch)
    : seed_(seed), stored_(std::move(stored)), batch_(std::move(batch)) {}

at::Tensor DeviceEvaluationDraws::hash_matrix(int64_t layer, int64_t d, int64_t h) const {
  if (!stored_.empty()) return stored_.at(static_cast<size_t>(layer));
  return drawn_matrix(d, h, seed_, word(Purpose::eval_hash_matrix, layer), batch_);
}

at::Tensor DeviceEvaluationDraws::sampled_positions(int64_t, int64_t, const ops::PackedLayout&) const {
  throw std::logic_error("evaluation has no ranking loss and samples no positions");
}

}  // namespace hax
