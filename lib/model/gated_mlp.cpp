#include "lib/model/gated_mlp.h"

#include "lib/model/init.h"
#include "lib/ops/linear.h"

namespace hax {

GatedMlp::GatedMlp(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
                   ParameterSet& parameters) {
  uint32_t place = kFirstPlace;
  const auto projection = [&](const char* name, int64_t out, int64_t in) {
    return &parameters.add(prefix + name,
                           init::normal({out, in}, config.init_std, init::Key{seed, layer, place++}));
  };
  const int64_t d_model = config.d_model, d_mlp = width(config);
  gate_proj_ = projection("gate_proj.weight", d_mlp, d_model);
  up_proj_ = projection("up_proj.weight", d_mlp, d_model);
  down_proj_ = projection("down_proj.weight", d_model, d_mlp);
}

int64_t GatedMlp::width(const ModelConfig& config) {
  constexpr int64_t kMultiple = 256;
  return (config.d_model * config.mlp_ratio * 2 / 3 + kMultiple - 1) / kMultiple * kMultiple;
}

at::Tensor GatedMlp::forward(const at::Tensor& x) const {
  const auto projected = [](const at::Tensor& in, const Parameter& weight) {
    return ops::linear(in, weight.to(in.scalar_type()));
  };
  return projected(at::silu(projected(x, *gate_proj_)) * projected(x, *up_proj_), *down_proj_);
}

}  // namespace hax
