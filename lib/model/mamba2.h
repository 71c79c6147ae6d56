// The Mamba2 mixer with its optional sparse branch (spec section 2.2):
//   [z, xBC, dt] = W_in x;  xBC = SiLU(conv(xBC));  [X, B, C] = xBC;  y = SSD(X, dt, A, B, C, D)
//   out = W_out RMSNorm((y + branch(X)) * SiLU(z))
#pragma once

#include "lib/model/mixer.h"
#include "lib/ops/gate.h"
#include "lib/ops/ssd.h"

namespace hax {

class Mamba2 : public Mixer {
 public:
  Mamba2(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
         ParameterSet& parameters);
  MixerOutput forward(const at::Tensor& x, const ops::PackedLayout& layout,
                      const Draws& draws) const override;
  std::unique_ptr<MixerState> initial_state(const Draws& draws, at::ScalarType compute) const override;
  at::Tensor step(const at::Tensor& x, MixerState& state) const override;

 private:
  struct State;
  // X (T, d_inner), B and C (T, G * N) after the convolution, dt (T, H).
  ops::SsdInputs scan_inputs(const at::Tensor& X, const at::Tensor& B, const at::Tensor& C,
                             const at::Tensor& dt, const at::Tensor& A) const;
  at::Tensor output(const ops::GateInputs& in) const;  // gate, norm, W_out
  int64_t conv_dim() const { return config_.d_inner() + 2 * config_.n_groups * config_.d_state; }

  const ModelConfig config_;
  const Parameter *in_proj_, *conv_weight_, *conv_bias_, *dt_bias_, *A_log_, *D_, *norm_, *out_proj_;
  std::unique_ptr<SparseBranch> branch_;
};

}  // namespace hax
