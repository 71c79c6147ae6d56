// Reading golden mixers and language models: configs from metadata, weights by official name, stored draws.
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/model/draws.h"
#include "lib/model/language_model.h"
#include "tests/ops/tensors.h"

namespace hax::test {

// Files of the golden folder whose name starts with `prefix`, sorted.
inline std::vector<std::string> golden_files(const std::string& prefix) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(golden_path("."))) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(prefix, 0) == 0 && entry.path().extension() == ".safetensors") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The golden language models, at least one of each kind.
inline std::vector<std::string> language_model_files() {
  std::vector<std::string> names;
  for (const char* prefix : {"lm_mamba_", "lm_mamba2_", "lm_samba"}) {
    const auto files = golden_files(prefix);
    TORCH_CHECK(!files.empty(), "no golden file ", prefix, "*");
    names.insert(names.end(), files.begin(), files.end());
  }
  return names;
}

// Official pattern names joined by '+'; "none" gives an empty list. Sets the hash rule too.
inline void set_patterns(const std::string& official, SparseConfig& sparse) {
  static const std::map<std::string, PatternKind> kKinds = {{"full", PatternKind::full},
                                                            {"sliding_window", PatternKind::sliding_window},
                                                            {"sink", PatternKind::sink},
                                                            {"dilated", PatternKind::dilated},
                                                            {"sign_bin_lsh", PatternKind::lsh},
                                                            {"argmax_lsh", PatternKind::lsh},
                                                            {"key_selection", PatternKind::key_selection}};
  sparse.patterns.clear();
  if (official == "none") return;
  for (size_t begin = 0; begin <= official.size();) {
    const size_t end = std::min(official.find('+', begin), official.size());
    const std::string part = official.substr(begin, end - begin);
    if (part == "argmax_lsh") sparse.hash_rule = HashRule::argmax;
    sparse.patterns.push_back(kKinds.at(part));
    begin = end + 1;
  }
}

// Of the files' "arch" or "model_type".
inline MixerKind mixer_kind(const std::string& official) {
  static const std::map<std::string, MixerKind> kKinds = {{"mamba", MixerKind::mamba},
                                                          {"mamba2", MixerKind::mamba2}};
  return kKinds.at(official);
}

// Draws that a golden file stored, by layer.
class StoredDraws : public Draws {
 public:
  explicit StoredDraws(bool training) : training_(training) {}
  std::map<int64_t, at::Tensor> hash_matrices, sampled;

  bool training() const override { return training_; }
  at::Tensor hash_matrix(int64_t layer, int64_t d, int64_t h) const override {
    const auto& matrix = hash_matrices.at(layer);
    TORCH_CHECK(matrix.size(0) == d && matrix.size(1) == h, "stored hash matrix is ", matrix.sizes());
    return matrix;
  }
  at::Tensor sampled_positions(int64_t layer, int64_t k, const ops::PackedLayout& layout) const override {
    const auto& positions = sampled.at(layer);
    TORCH_CHECK(positions.size(0) == layout.batch() && positions.size(1) == k, "stored sample is ",
                positions.sizes());
    return positions;
  }

 private:
  bool training_;
};

// The KS MLP's last bias has gradient zero in exact arithmetic: what is there is noise.
inline bool is_noise(const std::string& parameter) { return parameter.ends_with("dx_proj_3.bias"); }

// A golden language model: `steps/0.` etc. name the draws of a step, "" those of the first forward.
struct GoldenLanguageModel {
  Safetensors file;
  Config config;
  Batch batch;

  explicit GoldenLanguageModel(const std::string& name) : file(Safetensors::open(golden_path(name))) {
    const auto json = nlohmann::json::parse(file.metadata().at("config"));
    auto& m = config.model;
    m.mode = Statistics::paper;
    m.layers = json.at("num_hidden_layers");
    m.d_model = json.at("hidden_size");
    m.d_state = json.at("state_size");
    m.d_conv = json.at("conv_kernel");
    const std::string type = json.at("model_type");
    if (type == "samba")
      read_samba(json);
    else
      m.mixer = {mixer_kind(type)};
    if (m.has_mixer(MixerKind::mamba)) {
      // The official Mamba takes its width from here; its "expand" is not read.
      m.expand = json.at("intermediate_size").get<int64_t>() / m.d_model;
      m.dt_rank = json.at("time_step_rank");
    } else {
      m.expand = json.at("expand");
      m.chunk_size = json.at("chunk_size");
      m.n_heads = json.at("num_heads");
      m.n_groups = json.at("n_groups");
    }
    if (!json.at("sparse_arch").is_null()) set_patterns(json.at("sparse_arch"), m.sparse);
    m.sparse.k = json.at("sparse_keys");
    m.sparse.hash_bits = json.at("num_hash");
    config.train.lr = 2e-3;
    config.train.warmup_steps = 0;
    config.train.weight_decay = 0.01;
    vocab_size_ = json.at("vocab_size");
    pad_ = json.at("pad_token_id");
    read_batch();
  }

  LanguageModel model(at::ScalarType dtype = at::kFloat) const {
    LanguageModel model(config.model, vocab_size_, 1, at::kCPU, dtype);
    const at::NoGradGuard no_grad;
    for (const auto& p : model.parameters().all()) p->value.copy_(load_tensor(file, "weights/" + p->name));
    return model;
  }

  StoredDraws draws(const std::string& prefix) const {
    StoredDraws draws(true);
    for (int64_t i = 0; i < config.model.layers; ++i) {
      const std::string layer = prefix + "layer" + std::to_string(i) + ".";
      if (file.contains(layer + "hash_matrix"))
        draws.hash_matrices[i] = load_tensor(file, layer + "hash_matrix");
      if (file.contains(layer + "sampled_positions"))
        draws.sampled[i] = load_tensor(file, layer + "sampled_positions");
    }
    return draws;
  }

  // (S) rows of a (B, L, ...) tensor at the scored positions, in the batch's order.
  at::Tensor at_scored(const at::Tensor& padded) const {
    return padded.flatten(0, 1).index_select(0, at::tensor(scored_padded_, at::kLong));
  }

 private:
  // Attention at the layers listed, Mamba at the others, an MLP behind each.
  void read_samba(const nlohmann::json& json) {
    auto& m = config.model;
    const auto& attn = json.at("attn");
    m.mixer.assign(m.layers, MixerKind::mamba);
    for (int64_t layer : attn.at("layers")) m.mixer.at(layer) = MixerKind::attention;
    m.attention = {attn.at("num_heads"), attn.at("window_size"), true, attn.at("rope_theta")};
    m.mlp_ratio = json.at("hidden_ratio");
    m.init_std = json.at("initializer_range");
  }

  void read_batch() {
    const auto inputs = load_tensor(file, "inputs"), mask = load_tensor(file, "mask");
    const int64_t B = inputs.size(0), L = inputs.size(1) - 1;
    const auto tokens = inputs.accessor<int64_t, 2>();
    const auto scored = mask.accessor<uint8_t, 2>();
    batch.padded_length = L;
    batch.cu_seqlens = batch.cu_scored = {0};
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t i = 0; i < L && tokens[b][i] != pad_; ++i) {
        if (scored[b][i]) {
          batch.scored.push_back(static_cast<int32_t>(batch.tokens.size()));
          batch.targets.push_back(static_cast<int32_t>(tokens[b][i + 1]));
          scored_padded_.push_back(b * L + i);
        }
        batch.tokens.push_back(static_cast<int32_t>(tokens[b][i]));
      }
      batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
      batch.cu_scored.push_back(static_cast<int32_t>(batch.scored.size()));
    }
  }

  int64_t vocab_size_ = 0, pad_ = 0;
  std::vector<int64_t> scored_padded_;
};

}  // namespace hax::test
