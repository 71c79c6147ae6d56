// Multi-head softmax attention as a mixer, full or over a sliding window (spec section 2.3, Samba's SWA):
//   q, k, v = W_q x, W_k x, W_v x, split into heads; q, k <- RoPE(q), RoPE(k)
//   out = W_o [softmax_j(q_i . k_j / sqrt(head_dim) over j <= i, i - j < window) v_j of every head]
// Heads have d_model / attention.n_heads features. There is no bias and no sparse branch.
#pragma once

#include "lib/model/mixer.h"

namespace hax {

class Attention : public Mixer {
 public:
  Attention(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
            ParameterSet& parameters);
  MixerOutput forward(const at::Tensor& x, const ops::PackedLayout& layout,
                      const Draws& draws) const override;
  // The state is the turned keys and the values that a later query can reach: all, or window - 1.
  std::unique_ptr<MixerState> initial_state(const Draws& draws, at::ScalarType compute) const override;
  at::Tensor step(const at::Tensor& x, MixerState& state) const override;

 private:
  struct State;
  struct Heads {
    at::Tensor q, k, v;  // (T, H, P); q and k turned, k divided by sqrt(P)
  };
  Heads project(const at::Tensor& x, const at::Tensor& position) const;

  const AttentionConfig config_;
  const int64_t d_model_;
  const Parameter *q_proj_, *k_proj_, *v_proj_, *o_proj_;
};

}  // namespace hax
