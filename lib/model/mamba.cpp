#include "lib/model/mamba.h"

#include <cmath>

#include "lib/model/decay_rates.h"
#include "lib/model/init.h"
#include "lib/ops/causal_conv1d.h"
#include "lib/ops/linear.h"

namespace hax {

Mamba::Mamba(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
             ParameterSet& parameters)
    : config_(config) {
  const int64_t d_model = config.d_model, d_inner = config.d_inner(), N = config.d_state;
  const int64_t R = config.dt_rank_or_default();
  auto key = [&](uint32_t place) { return init::Key{seed, layer, place}; };

  in_proj_ = &parameters.add(prefix + "in_proj.weight",
                             init::normal({2 * d_inner, d_model}, config.init_std, key(0)));
  // Kaiming-uniform with a = sqrt(5), and the bias's own rule: both U(+-1 / sqrt(taps of a channel)).
  const double conv_bound = 1.0 / std::sqrt(static_cast<double>(config.d_conv));
  conv_weight_ = &parameters.add(prefix + "conv1d.weight",
                                 init::uniform({d_inner, 1, config.d_conv}, -conv_bound, conv_bound, key(1)));
  conv_bias_ =
      &parameters.add(prefix + "conv1d.bias", init::uniform({d_inner}, -conv_bound, conv_bound, key(2)));
  x_proj_ =
      &parameters.add(prefix + "x_proj.weight", init::normal({R + 2 * N, d_inner}, config.init_std, key(3)));
  const double dt_bound = 1.0 / std::sqrt(static_cast<double>(R));
  dt_proj_ =
      &parameters.add(prefix + "dt_proj.weight", init::uniform({d_inner, R}, -dt_bound, dt_bound, key(4)));
  dt_bias_ = &parameters.add(prefix + "dt_proj.bias", init::dt_bias(d_inner, key(5)));
  A_log_ = &parameters.add(prefix + "A_log", at::arange(1, N + 1, at::kFloat).log().repeat({d_inner, 1}));
  D_ = &parameters.add(prefix + "D", init::constant({d_inner}, 1.0));
  out_proj_ =
      &parameters.add(prefix + "out_proj.weight", init::normal({d_model, d_inner}, config.init_std, key(6)));
  if (!config.sparse.patterns.empty()) {
    branch_ = std::make_unique<SparseBranch>(config, layer, seed, prefix, parameters);
  }
}

ops::SelectiveScanInputs Mamba::scan_inputs(const at::Tensor& u, const at::Tensor& projected,
                                            const at::Tensor& A) const {
  const auto dtype = u.scalar_type();
  const int64_t R = config_.dt_rank_or_default(), N = config_.d_state;
  const auto dBC =
      ops::split_columns(ops::linear(projected, x_proj_->to(dtype)), {{0, R}, {R, N}, {R + N, N}});
  const at::Tensor delta = ops::linear(dBC[0], dt_proj_->to(dtype));
  return {u, delta, A, dBC[1], dBC[2], D_->wide(), dt_bias_->wide()};
}

at::Tensor Mamba::output(const ops::GateInputs& in) const {
  return ops::linear(ops::gate(in), out_proj_->to(in.z.scalar_type()));
}

MixerOutput Mamba::forward(const at::Tensor& x, const ops::PackedLayout& layout, const Draws& draws) const {
  DecayRates rates(*A_log_);
  const at::Tensor uz = ops::linear(x, in_proj_->to(x.scalar_type()));
  const ops::Columns u{0, config_.d_inner()}, z{u.end(), config_.d_inner()};
  std::vector<ops::Columns> pieces{z, u, u};
  if (branch_) pieces.insert(pieces.end(), {u, u});
  const auto in =
      ops::causal_conv1d_pieces(uz, u.begin, conv_weight_->wide(), conv_bias_->wide(), layout, pieces);
  const at::Tensor A = rates.join();
  ops::GateInputs gate;
  gate.z = in[0];
  MixerOutput out;
  const auto scan = [&] { gate.y = ops::selective_scan(scan_inputs(in[1], in[2], A), layout); };
  if (branch_) {
    out.branch = branch_->forward(in[3], in[4], layout, draws, scan);
    gate.O = out.branch.attended;
    gate.E = out.branch.E;
  } else {
    scan();
  }
  out.hidden = output(gate);
  return out;
}

struct Mamba::State : MixerState {
  at::Tensor window;                    // (d_conv - 1, d_inner): the last inputs of the convolution
  at::Tensor h;                         // (d_inner, N), fp32 or wider
  std::unique_ptr<BranchState> branch;  // null without one

  StateBytes bytes() const override {
    StateBytes bytes{static_cast<int64_t>(window.nbytes() + h.nbytes()), 0};
    if (branch) bytes += branch->bytes();
    return bytes;
  }
};

std::unique_ptr<MixerState> Mamba::initial_state(const Draws& draws, at::ScalarType compute) const {
  auto state = std::make_unique<State>();
  const auto options = in_proj_->value.options().dtype(compute);
  state->window = at::zeros({config_.d_conv - 1, config_.d_inner()}, options);
  state->h = at::zeros({config_.d_inner(), config_.d_state},
                       options.dtype(compute == at::kDouble ? at::kDouble : at::kFloat));
  if (branch_) state->branch = branch_->initial_state(draws, compute);
  return state;
}

at::Tensor Mamba::step(const at::Tensor& x, MixerState& mixer_state) const {
  auto& state = dynamic_cast<State&>(mixer_state);
  const auto uz = ops::linear(x, in_proj_->to(x.scalar_type())).split(config_.d_inner(), 1);
  const at::Tensor u = ops::causal_conv1d_step(uz[0], *conv_weight_, *conv_bias_, state.window);
  ops::GateInputs gate;
  gate.y = ops::selective_scan_step(scan_inputs(u, u, DecayRates(*A_log_).join()), state.h);
  gate.z = uz[1];
  if (branch_) gate.y = gate.y + branch_->step(u, *state.branch);
  return output(gate);
}

}  // namespace hax
