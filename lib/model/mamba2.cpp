#include "lib/model/mamba2.h"

#include <cmath>

#include "lib/model/init.h"
#include "lib/ops/causal_conv1d.h"
#include "lib/ops/rms_norm.h"
#include "lib/ops/ssd.h"

namespace hax {
namespace {

constexpr double kNormEps = 1e-5;

}  // namespace

Mamba2::Mamba2(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
               ParameterSet& parameters)
    : config_(config) {
  const int64_t d_model = config.d_model, d_inner = config.d_inner(), H = config.n_heads;
  const int64_t conv_dim = d_inner + 2 * config.n_groups * config.d_state;
  auto key = [&](uint32_t place) { return init::Key{seed, layer, place}; };

  in_proj_ = &parameters.add(prefix + "in_proj.weight",
                             init::normal({d_inner + conv_dim + H, d_model}, config.init_std, key(0)));
  conv_weight_ = &parameters.add(prefix + "conv1d.weight",
                                 init::normal({conv_dim, 1, config.d_conv}, config.init_std, key(1)));
  conv_bias_ = &parameters.add(prefix + "conv1d.bias", init::constant({conv_dim}, 0.0));
  dt_bias_ = &parameters.add(prefix + "dt_bias", init::dt_bias(H, key(2)));
  A_log_ = &parameters.add(prefix + "A_log", at::arange(1, H + 1, at::kFloat).log());
  D_ = &parameters.add(prefix + "D", init::constant({H}, 1.0));
  norm_ = &parameters.add(prefix + "norm.weight", init::constant({d_inner}, 1.0));
  // Kaiming-uniform with a = sqrt(5) is U(+-1 / sqrt(fan_in)).
  const double bound =
      1.0 / std::sqrt(static_cast<double>(d_inner)) / std::sqrt(static_cast<double>(config.layers));
  out_proj_ =
      &parameters.add(prefix + "out_proj.weight", init::uniform({d_model, d_inner}, -bound, bound, key(3)));
  if (!config.sparse.patterns.empty()) {
    branch_ = std::make_unique<SparseBranch>(config, layer, seed, prefix, parameters);
  }
}

MixerOutput Mamba2::forward(const at::Tensor& x, const ops::PackedLayout& layout, const Draws& draws) const {
  const int64_t T = x.size(0), d_inner = config_.d_inner(), H = config_.n_heads, P = config_.head_dim();
  const int64_t G = config_.n_groups, N = config_.d_state;
  const auto dtype = x.scalar_type();

  const auto zxbcdt =
      at::linear(x, in_proj_->to(dtype)).split_with_sizes({d_inner, d_inner + 2 * G * N, H}, 1);
  const at::Tensor &z = zxbcdt[0], &xBC_in = zxbcdt[1], &dt = zxbcdt[2];
  const auto xBC = ops::causal_conv1d(xBC_in, conv_weight_->view({-1, config_.d_conv}).to(dtype),
                                      conv_bias_->to(dtype), layout)
                       .split_with_sizes({d_inner, G * N, G * N}, 1);
  const at::Tensor& X = xBC[0];  // (T, d_inner)

  auto y = ops::ssd({X.view({T, H, P}), dt, -A_log_->exp(), xBC[1].view({T, G, N}), xBC[2].view({T, G, N}),
                     *D_, *dt_bias_},
                    layout, config_.chunk_size)
               .reshape({T, d_inner});
  MixerOutput out;
  if (branch_) {
    out.branch = branch_->forward(X, layout, draws);
    out.aux_loss = out.branch.aux_loss;
    y = y + out.branch.hidden;
  }
  out.hidden = at::linear(ops::gated_rms_norm(y, z, norm_->to(dtype), kNormEps), out_proj_->to(dtype));
  return out;
}

int64_t Mamba2::state_bytes(int64_t length) const {
  const int64_t conv_dim = config_.d_inner() + 2 * config_.n_groups * config_.d_state;
  int64_t floats = config_.d_inner() * config_.d_state + conv_dim * (config_.d_conv - 1);
  if (branch_) floats += branch_->keys_kept(length) * (config_.d_qk() + config_.d_inner());
  return floats * static_cast<int64_t>(sizeof(float));
}

}  // namespace hax
