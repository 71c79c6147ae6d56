// The Mamba mixer with its optional sparse branch (spec section 2.1):
//   [u, z] = W_in x;  u = SiLU(conv(u));  [delta, B, C] = W_x u;  y = SelectiveScan(u, W_dt delta, A, B, C,
//   D) out = W_out ((y + branch(u)) * SiLU(z))
#pragma once

#include "lib/model/mixer.h"
#include "lib/ops/gate.h"
#include "lib/ops/selective_scan.h"

namespace hax {

class Mamba : public Mixer {
 public:
  Mamba(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
        ParameterSet& parameters);
  MixerOutput forward(const at::Tensor& x, const ops::PackedLayout& layout,
                      const Draws& draws) const override;
  std::unique_ptr<MixerState> initial_state(const Draws& draws, at::ScalarType compute) const override;
  at::Tensor step(const at::Tensor& x, MixerState& state) const override;

 private:
  struct State;
  // u (T, d_inner) after the convolution; `projected` is u, which W_x reads, as a tensor of its own or not.
  ops::SelectiveScanInputs scan_inputs(const at::Tensor& u, const at::Tensor& projected,
                                       const at::Tensor& A) const;
  at::Tensor output(const ops::GateInputs& in) const;  // gate, W_out

  const ModelConfig config_;
  const Parameter *in_proj_, *conv_weight_, *conv_bias_, *x_proj_, *dt_proj_, *dt_bias_, *A_log_, *D_,
      *out_proj_;
  std::unique_ptr<SparseBranch> branch_;
};

}  // namespace hax
