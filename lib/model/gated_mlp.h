// The gated MLP behind a mixer (SwiGLU, Shazeer 2020; spec section 2.3): down(SiLU(gate(x)) * up(x)).
#pragma once

#include <string>

#include "lib/config/config.h"
#include "lib/model/parameters.h"

namespace hax {

class GatedMlp {
 public:
  // Registers {prefix}{gate,up,down}_proj.weight. Their places among the layer's initial values start at
  // kFirstPlace.
  static constexpr uint32_t kFirstPlace = 32;
  GatedMlp(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
           ParameterSet& parameters);
  // 256 * ceil(floor(d_model * mlp_ratio * 2 / 3) / 256).
  static int64_t width(const ModelConfig& config);

  at::Tensor forward(const at::Tensor& x) const;  // (T, d_model) -> (T, d_model), in x's dtype

 private:
  const Parameter *gate_proj_, *up_proj_, *down_proj_;
};

}  // namespace hax
