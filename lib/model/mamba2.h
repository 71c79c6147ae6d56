// The Mamba2 mixer with its optional sparse branch (spec section 2.2):
//   [z, xBC, dt] = W_in x;  xBC = SiLU(conv(xBC));  [X, B, C] = xBC;  y = SSD(X, dt, A, B, C, D)
//   out = W_out RMSNorm((y + branch(X)) * SiLU(z))
#pragma once

#include "lib/model/mixer.h"

namespace hax {

class Mamba2 : public Mixer {
 public:
  Mamba2(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
         ParameterSet& parameters);
  MixerOutput forward(const at::Tensor& x, const ops::PackedLayout& layout,
                      const Draws& draws) const override;
  int64_t state_bytes(int64_t length) const override;

 private:
  const ModelConfig config_;
  at::Tensor *in_proj_, *conv_weight_, *conv_bias_, *dt_bias_, *A_log_, *D_, *norm_, *out_proj_;
  std::unique_ptr<SparseBranch> branch_;
};

}  // namespace hax
