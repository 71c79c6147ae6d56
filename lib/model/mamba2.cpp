#include "lib/model/mamba2.h"

#include <cmath>

#include "lib/model/decay_rates.h"
#include "lib/model/init.h"
#include "lib/model/norm_eps.h"
#include "lib/ops/causal_conv1d.h"
#include "lib/ops/linear.h"

namespace hax {
Mamba2::Mamba2(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
               ParameterSet& parameters)
    : config_(config) {
  const int64_t d_model = config.d_model, d_inner = config.d_inner(), H = config.n_heads;
  const int64_t conv_dim = this->conv_dim();
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

ops::SsdInputs Mamba2::scan_inputs(const at::Tensor& X, const at::Tensor& B, const at::Tensor& C,
                                   const at::Tensor& dt, const at::Tensor& A) const {
  const int64_t T = X.size(0), G = config_.n_groups, N = config_.d_state;
  return {X.view({T, config_.n_heads, config_.head_dim()}),
          dt,
          A,
          B.view({T, G, N}),
          C.view({T, G, N}),
          D_->wide(),
          dt_bias_->wide()};
}

at::Tensor Mamba2::output(const ops::GateInputs& in) const {
  return ops::linear(ops::gated_rms_norm(in, norm_->wide(), kNormEps), out_proj_->to(in.z.scalar_type()));
}

MixerOutput Mamba2::forward(const at::Tensor& x, const ops::PackedLayout& layout, const Draws& draws) const {
  const int64_t T = x.size(0), d_inner = config_.d_inner(), GN = config_.n_groups * config_.d_state;
  DecayRates rates(*A_log_);
  const at::Tensor zxBCdt = ops::linear(x, in_proj_->to(x.scalar_type()));
  const ops::Columns z{0, d_inner}, X{d_inner, d_inner}, B{X.end(), GN}, C{B.end(), GN},
      dt{C.end(), config_.n_heads};
  std::vector<ops::Columns> pieces{z, X, B, C, dt};
  if (branch_) pieces.insert(pieces.end(), {X, X});
  const auto in =
      ops::causal_conv1d_pieces(zxBCdt, X.begin, conv_weight_->wide(), conv_bias_->wide(), layout, pieces);
  const at::Tensor A = rates.join();
  ops::GateInputs gate;
  gate.z = in[0];
  MixerOutput out;
  const auto scan = [&] {
    const auto scanned = scan_inputs(in[1], in[2], in[3], in[4], A);
    gate.y = ops::ssd(scanned, layout, config_.chunk_size).reshape({T, d_inner});
  };
  if (branch_) {
    out.branch = branch_->forward(in[5], in[6], layout, draws, scan);
    gate.O = out.branch.attended;
    gate.E = out.branch.E;
  } else {
    scan();
  }
  out.hidden = output(gate);
  return out;
}

struct Mamba2::State : MixerState {
  at::Tensor window;                    // (d_conv - 1, conv_dim): the last inputs of the convolution
  at::Tensor S;                         // (H, P, N), fp32 or wider
  std::unique_ptr<BranchState> branch;  // null without one

  StateBytes bytes() const override {
    StateBytes bytes{static_cast<int64_t>(window.nbytes() + S.nbytes()), 0};
    if (branch) bytes += branch->bytes();
    return bytes;
  }
};

std::unique_ptr<MixerState> Mamba2::initial_state(const Draws& draws, at::ScalarType compute) const {
  auto state = std::make_unique<State>();
  const auto options = in_proj_->value.options().dtype(compute);
  state->window = at::zeros({config_.d_conv - 1, conv_dim()}, options);
  state->S = at::zeros({config_.n_heads, config_.head_dim(), config_.d_state},
                       options.dtype(compute == at::kDouble ? at::kDouble : at::kFloat));
  if (branch_) state->branch = branch_->initial_state(draws, compute);
  return state;
}

at::Tensor Mamba2::step(const at::Tensor& x, MixerState& mixer_state) const {
  auto& state = dynamic_cast<State&>(mixer_state);
  const auto dtype = x.scalar_type();
  const int64_t d_inner = config_.d_inner(), GN = config_.n_groups * config_.d_state;
  const auto zxBCdt =
      ops::linear(x, in_proj_->to(dtype)).split_with_sizes({d_inner, conv_dim(), config_.n_heads}, 1);
  const auto xBC = ops::causal_conv1d_step(zxBCdt[1], *conv_weight_, *conv_bias_, state.window)
                       .split_with_sizes({d_inner, GN, GN}, 1);
  ops::GateInputs gate;
  gate.y = ops::ssd_step(scan_inputs(xBC[0], xBC[1], xBC[2], zxBCdt[2], DecayRates(*A_log_).join()), state.S)
               .reshape({1, d_inner});
  gate.z = zxBCdt[0];
  if (branch_) gate.y = gate.y + branch_->step(xBC[0], *state.branch);
  return output(gate);
}

}  // namespace hax
