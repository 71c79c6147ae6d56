#include "lib/model/attention.h"

#include <algorithm>
#include <cmath>

#include "lib/model/init.h"
#include "lib/model/key_cache.h"
#include "lib/ops/linear.h"
#include "lib/ops/rope.h"
#include "lib/ops/sparse_attention.h"

namespace hax {

Attention::Attention(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
                     ParameterSet& parameters)
    : config_(config.attention), d_model_(config.d_model) {
  uint32_t place = 0;
  const auto projection = [&](const char* name) {
    return &parameters.add(
        prefix + name, init::normal({d_model_, d_model_}, config.init_std, init::Key{seed, layer, place++}));
  };
  q_proj_ = projection("q_proj.weight");
  k_proj_ = projection("k_proj.weight");
  v_proj_ = projection("v_proj.weight");
  o_proj_ = projection("o_proj.weight");
}

Attention::Heads Attention::project(const at::Tensor& x, const at::Tensor& position) const {
  const int64_t H = config_.n_heads, P = d_model_ / H;
  const auto heads = [&](const Parameter& weight) {
    return ops::linear(x, weight.to(x.scalar_type())).view({-1, H, P});
  };
  at::Tensor q = heads(*q_proj_), k = heads(*k_proj_);
  if (config_.rope) {
    q = ops::rope(q, position, config_.rope_theta);
    k = ops::rope(k, position, config_.rope_theta);
  }
  return {q, k / std::sqrt(static_cast<double>(P)), heads(*v_proj_)};
}

MixerOutput Attention::forward(const at::Tensor& x, const ops::PackedLayout& layout, const Draws&) const {
  const Heads heads = project(x, layout.position);
  ops::KeySet keys;
  if (config_.window > 0)
    keys.memberships = {ops::WindowMembership{config_.window}};
  else
    keys.memberships = {ops::FullMembership{}};
  std::vector<at::Tensor> attended;  // (T, P) each
  for (int64_t h = 0; h < config_.n_heads; ++h) {
    attended.push_back(ops::sparse_attention(heads.q.select(1, h), heads.k.select(1, h), heads.v.select(1, h),
                                             keys, layout));
  }
  MixerOutput out;
  out.hidden = ops::linear(at::cat(attended, 1), o_proj_->to(x.scalar_type()));
  return out;
}

struct Attention::State : MixerState {
  State(int64_t d_model, const at::TensorOptions& options) : cache(d_model, d_model, options) {}
  KeyCache cache;
  int64_t position = 0;  // of the next token

  StateBytes bytes() const override { return {0, cache.bytes()}; }
};

std::unique_ptr<MixerState> Attention::initial_state(const Draws&, at::ScalarType compute) const {
  return std::make_unique<State>(d_model_, q_proj_->value.options().dtype(compute));
}

at::Tensor Attention::step(const at::Tensor& x, MixerState& mixer_state) const {
  auto& state = dynamic_cast<State&>(mixer_state);
  const int64_t t = state.position++, window = config_.window;
  const Heads heads = project(x, at::full({1}, t, x.options().dtype(at::kLong)));
  state.cache.insert(t, heads.k.view({1, d_model_}), heads.v.view({1, d_model_}), /*holders=*/1);
  std::vector<int64_t> seen;
  for (int64_t j = window > 0 ? std::max<int64_t>(0, t - window + 1) : 0; j <= t; ++j) seen.push_back(j);
  const KeyCache::Rows rows = state.cache.select(seen);
  const auto type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto by_head = [&](const at::Tensor& kept) {
    return kept.view({-1, config_.n_heads, d_model_ / config_.n_heads}).to(type);  // (n, H, P)
  };
  const at::Tensor weights = (heads.q.to(type) * by_head(rows.keys)).sum(2, true).softmax(0);  // (n, H, 1)
  const at::Tensor attended = (weights * by_head(rows.values)).sum(0).view({1, d_model_}).to(x.scalar_type());
  if (window > 0 && t + 1 >= window) state.cache.release(t + 1 - window);
  return ops::linear(attended, o_proj_->to(x.scalar_type()));
}

}  // namespace hax
