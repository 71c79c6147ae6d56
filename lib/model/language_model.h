// The language model (spec section 2): embedding -> layers x [x <- x + mixer(RMSNorm(x)), and with an MLP
// x <- x + mlp(RMSNorm(x))] -> RMSNorm -> logits with the tied embedding matrix, at the scored positions
// alone.
#pragma once

#include <memory>
#include <vector>

#include "lib/config/config.h"
#include "lib/data/example.h"
#include "lib/model/gated_mlp.h"
#include "lib/model/mixer.h"

namespace hax {

// A batch on the model's device.
struct ModelInput {
  at::Tensor tokens;   // (T) int64
  at::Tensor scored;   // (S) int64, rows of `tokens`
  at::Tensor targets;  // (S) int64
  ops::PackedLayout layout;
};
ModelInput to_device(const Batch& batch, at::Device device);

struct ModelOutput {
  at::Tensor logits;    // (S, vocab_size)
  at::Tensor aux_loss;  // scalar, sum over layers; undefined where there is none. On kPatientLane
  std::vector<BranchOutput> branches;    // one a layer; empty ones without a branch
  std::vector<at::Tensor> mixer_inputs;  // one a layer, (T, d_model): what its mixer read
};

class LanguageModel {
 public:
  // Weights drawn from (seed, init, ...), held in fp32 (`dtype` may be fp64 for checks).
  // `constructive` mixers set the embedding by the data's token slots instead, and throw UsageError when
  // `data` names none or d_model is too small for them.
  LanguageModel(const ModelConfig& config, const DataSpec& data, uint64_t seed, at::Device device,
                at::ScalarType dtype = at::kFloat);
  // For data of which only the vocabulary is known.
  LanguageModel(const ModelConfig& config, int64_t vocab_size, uint64_t seed, at::Device device,
                at::ScalarType dtype = at::kFloat);

  // Activations and products in `compute`; the residual stream, norms' statistics and softmaxes in fp32 or
  // wider.
  ModelOutput forward(const ModelInput& input, const Draws& draws, at::ScalarType compute) const;

  // Decoding (lib/model/decoding.h), without gradients: the state of an empty sequence, and its next token
  // -> logits (vocab_size) for what follows. `draws` are evaluation's.
  DecodingState initial_state(const Draws& draws, at::ScalarType compute) const;
  at::Tensor step(int64_t token, DecodingState& state) const;
  // What is held after these tokens, by decoding them.
  StateBytes state_after(const std::vector<int32_t>& tokens, const Draws& draws,
                         at::ScalarType compute) const;

  const ModelConfig& config() const { return config_; }
  const Mixer& mixer(int64_t layer) const { return *blocks_.at(layer).mixer; }
  const DataSpec& data() const { return data_; }  // as the constructor was given it
  int64_t vocab_size() const { return data_.vocab_size; }
  at::Device device() const { return device_; }
  ParameterSet& parameters() { return parameters_; }
  const ParameterSet& parameters() const { return parameters_; }

 private:
  ModelConfig config_;
  DataSpec data_;
  at::Device device_;
  ParameterSet parameters_;
  const Parameter *embeddings_, *norm_f_;
  struct Block {
    const Parameter* mixer_norm;
    std::unique_ptr<Mixer> mixer;
    const Parameter* mlp_norm = nullptr;
    std::unique_ptr<GatedMlp> mlp;  // may be null
  };
  std::vector<Block> blocks_;
};

}  // namespace hax
