#include "lib/convert/shapes.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/safetensors_header.h"
#include "lib/config/names.h"
#include "lib/convert/settled_config.h"
#include "lib/model/gated_mlp.h"

namespace hax {
namespace {

constexpr int64_t kMostMlpRatio = 256;  // as of model.mlp_ratio

std::string layer_name(int64_t layer, const std::string& rest) {
  return "layers." + std::to_string(layer) + "." + rest;
}

class ShapeReader {
 public:
  ShapeReader(const WeightFile& weights, const Config& given, const std::string& given_by)
      : weights_(weights), config_(given, weights.path(), given_by) {}

  Config run() {
    const auto layers = mixers();
    config_.set_mixers(layers);
    config_.set("model.d_model", size("embeddings.weight", 1, 2));
    for (size_t i = 0; i < layers.size(); ++i) {
      const auto layer = static_cast<int64_t>(i);
      if (layers[i] == MixerKind::mamba) mamba(layer);
      if (layers[i] == MixerKind::mamba2) mamba2(layer);
      gated_mlp(layer);
    }
    sparse_branch(layers);
    return config_.config();
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { throw DataError(weights_.path() + ": " + what); }

  // Element `axis` of the shape of a tensor that must have `dims` dimensions.
  int64_t size(const std::string& name, size_t axis, size_t dims) const {
    const auto& shape = weights_.shape(name);
    if (shape.size() != dims) {
      refuse("tensor " + safetensors::in_quotes(name) + " has shape " + safetensors::shape_text(shape) +
             ", not " + std::to_string(dims) + " dimensions");
    }
    return shape[axis];
  }

  std::vector<MixerKind> mixers() const {
    std::vector<MixerKind> layers;
    while (true) {
      const std::string mixer = layer_name(static_cast<int64_t>(layers.size()), "mixer.");
      const bool any = std::any_of(weights_.names().begin(), weights_.names().end(),
                                   [&](const auto& entry) { return entry.first.starts_with(mixer); });
      if (!any) break;
      if (weights_.contains(mixer + "dt_bias")) {
        layers.push_back(MixerKind::mamba2);
      } else if (weights_.contains(mixer + "x_proj.weight")) {
        layers.push_back(MixerKind::mamba);
      } else if (weights_.contains(mixer + "q_proj.weight")) {
        layers.push_back(MixerKind::attention);
      } else {
        refuse(mixer + "* is none of Mamba (x_proj.weight), Mamba2 (dt_bias) and attention (q_proj.weight)");
      }
    }
    if (layers.empty()) refuse("holds no layers.0.mixer.* beside its embedding");
    return layers;
  }

  void set_inner(int64_t d_inner, const std::string& name) {
    const int64_t d_model = config_.model().d_model;
    if (d_model < 1 || d_inner < 1 || d_inner % d_model != 0) {
      refuse("d_inner = " + std::to_string(d_inner) + " of " + name +
             " is no multiple of d_model = " + std::to_string(d_model) + ", as models of hax have it");
    }
    config_.set("model.expand", d_inner / d_model);
  }

  void mamba(int64_t layer) {
    const auto name = [&](const char* rest) { return layer_name(layer, std::string("mixer.") + rest); };
    set_inner(size(name("A_log"), 0, 2), name("A_log"));
    config_.set("model.d_state", size(name("A_log"), 1, 2));
    config_.set("model.d_conv", size(name("conv1d.weight"), 2, 3));
    const int64_t rank = size(name("dt_proj.weight"), 1, 2);
    if (rank != config_.model().dt_rank_or_default()) config_.set("model.dt_rank", rank);
  }

  void mamba2(int64_t layer) {
    const auto name = [&](const char* rest) { return layer_name(layer, std::string("mixer.") + rest); };
    set_inner(size(name("norm.weight"), 0, 1), name("norm.weight"));
    config_.set("model.n_heads", size(name("dt_bias"), 0, 1));
    config_.set("model.d_conv", size(name("conv1d.weight"), 2, 3));
    const int64_t width = size(name("conv1d.weight"), 0, 3) - config_.model().d_inner();
    const int64_t groups = config_.model().n_groups;
    if (width < 1 || width % (2 * groups) != 0) {
      throw UsageError(weights_.path() + ": " + name("conv1d.weight") + " leaves " + std::to_string(width) +
                       " features for B and C, which model.n_groups = " + std::to_string(groups) +
                       " does not divide in two a group; set model.n_groups (--set)");
    }
    config_.set("model.d_state", width / (2 * groups));
  }

  // Widths are rounded up, so several ratios have the same: one that fits stands, else the smallest is taken.
  void gated_mlp(int64_t layer) {
    const std::string name = layer_name(layer, "mlp.gate_proj.weight");
    if (!weights_.contains(name)) return;
    const int64_t width = size(name, 0, 2);
    ModelConfig model = config_.model();
    if (model.mlp_ratio > 0 && GatedMlp::width(model) == width) return;
    for (model.mlp_ratio = 1; model.mlp_ratio <= kMostMlpRatio; ++model.mlp_ratio) {
      if (GatedMlp::width(model) == width) return config_.set("model.mlp_ratio", model.mlp_ratio);
    }
    refuse(name + " is " + std::to_string(width) +
           " wide, which no model.mlp_ratio gives at d_model = " + std::to_string(model.d_model));
  }

  void sparse_branch(const std::vector<MixerKind>& layers) {
    for (size_t i = 0; i < layers.size(); ++i) {
      const auto layer = static_cast<int64_t>(i);
      const std::string branch = layer_name(layer, "mixer.xx_proj.weight");
      const auto& patterns = config_.model().sparse.patterns;
      if (weights_.contains(branch)) {
        if (patterns.empty()) {
          throw UsageError(weights_.path() + ": has a sparse branch (" + branch +
                           "), whose patterns weights do not tell; give them with --config, or --set " +
                           "model.sparse.patterns=[lsh,key_selection]");
        }
        const int64_t d_qk = size(branch, 0, 2) / 2;
        if (d_qk != config_.model().d_qk()) config_.set("model.sparse.d_qk", d_qk);
      }
      const std::string mlp = layer_name(layer, "mixer.dx_proj_1.weight");
      const bool selects =
          std::find(patterns.begin(), patterns.end(), PatternKind::key_selection) != patterns.end();
      if (weights_.contains(mlp) && !selects) {
        throw UsageError(weights_.path() + ": has the score MLP of key_selection (" + mlp +
                         "), which model.sparse.patterns does not name");
      }
    }
  }

  const WeightFile& weights_;
  SettledConfig config_;
};

}  // namespace

Config config_from_shapes(const WeightFile& weights, const Config& given, const std::string& given_by) {
  return ShapeReader(weights, given, given_by).run();
}

}  // namespace hax
