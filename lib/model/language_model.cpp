#include "lib/model/language_model.h"

#include <optional>
#include <stdexcept>

#include "lib/model/init.h"
#include "lib/model/norm_eps.h"
#include "lib/ops/embedding.h"
#include "lib/ops/linear.h"
#include "lib/ops/rms_norm.h"

namespace hax {
namespace {

constexpr int64_t kOutsideLayers = (1 << 24) - 1;  // the "layer" of embeddings in init keys

at::Tensor to_tensor(const std::vector<int32_t>& values, at::Device device) {
  return at::tensor(values, at::kInt).to(at::kLong).to(device);
}

DataSpec vocabulary_alone(int64_t vocab_size) {
  DataSpec data;
  data.vocab_size = vocab_size;
  return data;
}

}  // namespace

ModelInput to_device(const Batch& batch, at::Device device) {
  ModelInput input;
  input.tokens = to_tensor(batch.tokens, device);
  input.scored = to_tensor(batch.scored, device);
  input.targets = to_tensor(batch.targets, device);
  input.layout =
      ops::make_layout({batch.cu_seqlens.begin(), batch.cu_seqlens.end()}, batch.padded_length, device);
  return input;
}

LanguageModel::LanguageModel(const ModelConfig& config, int64_t vocab_size, uint64_t seed, at::Device device,
                             at::ScalarType dtype)
    : LanguageModel(config, vocabulary_alone(vocab_size), seed, device, dtype) {}

LanguageModel::LanguageModel(const ModelConfig& config, const DataSpec& data, uint64_t seed,
                             at::Device device, at::ScalarType dtype)
    : config_(config), data_(data), device_(device) {
  std::optional<TokenCodes> codes;
  if (config.has_mixer(MixerKind::constructive)) codes.emplace(data, config.d_model, device);
  embeddings_ = &parameters_.add(
      "embeddings.weight",
      codes ? codes->embedding()
            : init::normal({data_.vocab_size, config.d_model}, config.init_std, {seed, kOutsideLayers, 0}));
  for (int64_t i = 0; i < config.layers; ++i) {
    const std::string prefix = "layers." + std::to_string(i) + ".";
    const auto norm = [&](const char* name) {
      return &parameters_.add(prefix + name, init::constant({config.d_model}, 1.0));
    };
    Block block;
    block.mixer_norm = norm(config.mlp_ratio > 0 ? "mixer_norm.weight" : "norm.weight");
    block.mixer = make_mixer(config, i, seed, prefix + "mixer.", parameters_, codes ? &*codes : nullptr);
    if (config.mlp_ratio > 0) {
      block.mlp_norm = norm("mlp_norm.weight");
      block.mlp = std::make_unique<GatedMlp>(config, i, seed, prefix + "mlp.", parameters_);
    }
    blocks_.push_back(std::move(block));
  }
  norm_f_ = &parameters_.add("norm_f.weight", init::constant({config.d_model}, 1.0));
  parameters_.finish(device, dtype);
}

ModelOutput LanguageModel::forward(const ModelInput& input, const Draws& draws,
                                   at::ScalarType compute) const {
  ModelOutput out;
  // (T, d_model): the residual stream, in the weights' dtype, and what is still to be added to it.
  at::Tensor x = ops::embedding(*embeddings_, input.tokens, input.layout), h;
  const auto add_and_norm = [&](const Parameter* weight) {
    const auto both = ops::add_rms_norm(x, h, weight->wide(), kNormEps, ops::Path::automatic, compute);
    x = both.sum;
    return both.norm;
  };
  for (const auto& block : blocks_) {
    out.mixer_inputs.push_back(add_and_norm(block.mixer_norm));
    auto mixed = block.mixer->forward(out.mixer_inputs.back(), input.layout, draws);
    h = mixed.hidden;
    if (block.mlp) h = block.mlp->forward(add_and_norm(block.mlp_norm));
    out.branches.push_back(std::move(mixed.branch));
  }
  const auto scored = ops::add_rms_norm_of_rows(x, h, input.scored, norm_f_->wide(), kNormEps);
  out.logits = ops::linear(scored, embeddings_->to(compute));
  for (const auto& branch : out.branches) {
    if (!branch.aux_loss.defined()) continue;
    if (!out.aux_loss.defined()) {
      out.aux_loss = branch.aux_loss;
      continue;
    }
    const ops::Lane where_they_are(ops::kPatientLane, {});
    out.aux_loss = out.aux_loss + branch.aux_loss;
  }
  return out;
}

DecodingState LanguageModel::initial_state(const Draws& draws, at::ScalarType compute) const {
  const at::NoGradGuard no_grad;
  if (draws.training())
    throw std::invalid_argument("LanguageModel::initial_state: the draws are of training");
  DecodingState state{compute, {}};
  for (const auto& block : blocks_) state.layers.push_back(block.mixer->initial_state(draws, compute));
  return state;
}

at::Tensor LanguageModel::step(int64_t token, DecodingState& state) const {
  const at::NoGradGuard no_grad;
  at::Tensor x = embeddings_->value.narrow(0, token, 1);  // (1, d_model)
  const auto normed = [&](const Parameter* weight) {
    return ops::rms_norm(x, *weight, kNormEps).to(state.compute);
  };
  for (size_t i = 0; i < blocks_.size(); ++i) {
    x = x + blocks_[i].mixer->step(normed(blocks_[i].mixer_norm), *state.layers.at(i));
    if (blocks_[i].mlp) x = x + blocks_[i].mlp->forward(normed(blocks_[i].mlp_norm));
  }
  const at::Tensor last = ops::rms_norm(x, *norm_f_, kNormEps).to(state.compute);
  return ops::linear(last, embeddings_->to(state.compute)).squeeze(0);
}

StateBytes LanguageModel::state_after(const std::vector<int32_t>& tokens, const Draws& draws,
                                      at::ScalarType compute) const {
  DecodingState state = initial_state(draws, compute);
  for (int32_t token : tokens) step(token, state);
  return state.bytes();
}

}  // namespace hax
