#include "lib/model/constructive.h"

#include <stdexcept>

#include "lib/ops/overwrite.h"

namespace hax {

MixerOutput OverwriteMixer::forward(const at::Tensor& x, const ops::PackedLayout& layout,
                                    const Draws&) const {
  const at::Tensor signs = x.sign();
  MixerOutput out;
  out.hidden = ops::overwrite(signs, layout) - signs;
  return out;
}

struct OverwriteMixer::State : MixerState {
  at::Tensor h;  // (1, width)
  StateBytes bytes() const override { return {static_cast<int64_t>(h.nbytes()), 0}; }
};

std::unique_ptr<MixerState> OverwriteMixer::initial_state(const Draws&, at::ScalarType compute) const {
  auto state = std::make_unique<State>();
  state->h = at::zeros({1, width_}, at::TensorOptions(compute).device(device_));
  return state;
}

at::Tensor OverwriteMixer::step(const at::Tensor& x, MixerState& mixer_state) const {
  auto& state = dynamic_cast<State&>(mixer_state);
  const at::Tensor signs = x.sign(), used = signs.narrow(1, 0, width_);
  state.h = at::where(used != 0, used, state.h);
  return at::constant_pad_nd(state.h, {0, x.size(1) - width_}) - signs;
}

LookupMixer::LookupMixer(const ModelConfig& config, int64_t layer, const TokenCodes& codes)
    : config_(config),
      layer_(layer),
      key_mask_(codes.level_mask() + codes.is_value_mask()),
      value_mask_(codes.value_mask() + codes.is_value_mask()),
      query_mask_(codes.level_mask() * kSharpness),
      asking_(codes.is_value_mask() * kSharpness) {}

LookupMixer::Projected LookupMixer::project(const at::Tensor& signs) const {
  const auto like = [&](const at::Tensor& mask) { return mask.to(signs.scalar_type()); };
  return {signs * like(key_mask_), signs * like(query_mask_) + like(asking_), signs * like(value_mask_)};
}

MixerOutput LookupMixer::forward(const at::Tensor& x, const ops::PackedLayout& layout,
                                 const Draws& draws) const {
  const at::Tensor signs = x.sign();
  const auto [K, Q, V] = project(signs);
  MixerOutput out;
  out.branch = branch_attention(config_, layer_, K, Q, V, {}, layout, draws);
  out.hidden = out.branch.attended - signs;
  return out;
}

struct LookupMixer::State : MixerState {
  BranchState branch;
  State(int64_t d_model, const at::TensorOptions& options) : branch(d_model, d_model, options) {}
  StateBytes bytes() const override { return branch.bytes(); }
};

std::unique_ptr<MixerState> LookupMixer::initial_state(const Draws& draws, at::ScalarType compute) const {
  const std::string fault = decoding_fault(config_);
  if (!fault.empty()) throw std::invalid_argument("LookupMixer::initial_state: " + fault);
  const auto options = key_mask_.options().dtype(compute);
  auto state = std::make_unique<State>(config_.d_model, options);
  const SparseConfig& sparse = config_.sparse;
  for (size_t i = 0; i < sparse.patterns.size(); ++i) {
    state->branch.memories.push_back(
        make_pattern_memory(sparse.patterns[i], sparse.share(i), config_, layer_, {}, draws, options));
  }
  return state;
}

at::Tensor LookupMixer::step(const at::Tensor& x, MixerState& mixer_state) const {
  const at::Tensor signs = x.sign();
  const auto [K, Q, V] = project(signs);
  return dynamic_cast<State&>(mixer_state).branch.attend(K, Q, V) - signs;
}

}  // namespace hax
