#include "lib/convert/huggingface_config.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/json.h"
#include "lib/config/names.h"
#include "lib/convert/settled_config.h"
#include "lib/model/norm_eps.h"

namespace hax {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostOfAnything = 1 << 24;  // no size of a model is larger

constexpr int64_t kMostLayers = 1000;

// Python writes infinities bare, which JSON does not know: as text they can be read.
std::string quote_infinities(const std::string& text) {
  constexpr std::string_view kWord = "Infinity";
  std::string out;
  bool in_text = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!in_text && text.compare(i, kWord.size(), kWord) == 0) {
      out.append("\"").append(kWord).append("\"");
      i += kWord.size() - 1;
      continue;
    }
    if (in_text && text[i] == '\\' && i + 1 < text.size())
      out += text[i++];
    else if (text[i] == '"')
      in_text = !in_text;
    out += text[i];
  }
  return out;
}

constexpr const char* kGroups =
    ": hax normalises all heads together, the newer versions of transformers each group by itself, so the "
    "same "
    "weights are two models there; one group can be converted";

class Reader {
 public:
  Reader(nlohmann::json json, const std::string& path, const Config& given)
      : json_(std::move(json)), path_(path), config_(given, path) {}

  HuggingfaceConfig run() {
    const std::string type = text("model_type", "");
    const bool mamba2 = type == "mamba2";
    if (type != "mamba" && !mamba2) {
      throw DataError(path_ + ": model_type is " + shown_json(type) + "; mamba and mamba2 can be converted");
    }
    common(mamba2);
    mamba2 ? of_mamba2() : of_mamba();
    HuggingfaceConfig out;
    out.vocab_size = integer("vocab_size", mamba2 ? 32768 : 50280);
    out.tied = boolean("tie_word_embeddings", !mamba2);
    out.config = config_.config();
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& key, const std::string& why) const {
    throw DataError(path_ + ": " + key + " is " + shown_json(json_.at(key)) + "; " + why);
  }

  const nlohmann::json* find(const std::string& key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  int64_t integer(const std::string& key, int64_t fallback, int64_t most = kMostOfAnything) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return fallback;
    const double number = value->is_number() ? value->get<double>() : 0.0;
    if (number < 1.0 || number > static_cast<double>(most) || number != std::floor(number)) {
      refuse(key, "an integer from 1 to " + std::to_string(most) + " is wanted");
    }
    return static_cast<int64_t>(number);
  }
  bool boolean(const std::string& key, bool fallback) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) refuse(key, "true or false is wanted");
    return value->get<bool>();
  }
  std::string text(const std::string& key, const std::string& fallback) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) refuse(key, "text is wanted");
    return value->get<std::string>();
  }

  void common(bool mamba2) {
    if (boolean("use_bias", false)) refuse("use_bias", "projections of hax have no bias");
    if (!boolean("use_conv_bias", true)) refuse("use_conv_bias", "the convolution of hax has a bias");
    const std::string act = text("hidden_act", "silu");
    if (act != "silu" && act != "swish") refuse("hidden_act", "hax has silu alone");
    if (const nlohmann::json* eps = find("layer_norm_epsilon"); eps != nullptr && *eps != kNormEps) {
      refuse("layer_norm_epsilon", "hax has 1e-5");
    }
    if (!boolean("rms_norm", true)) refuse("rms_norm", "Mamba2 of hax has its norm before the output");
    if (find("quantization_config") != nullptr)
      refuse("quantization_config", "weights must be F32, F16 or BF16");
    check_time_step_limit();
    config_.set_mixers(std::vector<MixerKind>(
        static_cast<size_t>(integer("num_hidden_layers", mamba2 ? 64 : 32, kMostLayers)),
        mamba2 ? MixerKind::mamba2 : MixerKind::mamba));
    config_.set("model.d_model", integer("hidden_size", mamba2 ? 4096 : 768));
    config_.set("model.d_state", integer("state_size", mamba2 ? 128 : 16));
    config_.set("model.d_conv", integer("conv_kernel", 4));
  }

  // Infinity stands there as text: quoted above, or as {"__float__": "Infinity"}.
  static bool is_number(const nlohmann::json& value, double wanted) {
    if (value.is_number()) return value.get<double>() == wanted;
    const nlohmann::json* word =
        value.is_object() && value.contains("__float__") ? &value.at("__float__") : &value;
    return *word == "Infinity" && wanted == std::numeric_limits<double>::infinity();
  }
  void check_time_step_limit() const {
    const nlohmann::json* limit = find("time_step_limit");
    if (limit == nullptr) return;
    const bool free = limit->is_array() && limit->size() == 2 && is_number(limit->at(0), 0.0) &&
                      is_number(limit->at(1), std::numeric_limits<double>::infinity());
    if (!free) refuse("time_step_limit", "hax does not clamp time steps: [0.0, Infinity] can be converted");
  }

  void of_mamba() {
    const int64_t d_model = config_.model().d_model;
    if (find("intermediate_size") != nullptr) {
      const int64_t d_inner = integer("intermediate_size", 0);
      if (d_inner % d_model != 0) {
        refuse("intermediate_size", "a multiple of hidden_size = " + std::to_string(d_model) + " is wanted");
      }
      config_.set("model.expand", d_inner / d_model);
    } else {
      config_.set("model.expand", integer("expand", 2));
    }
    const nlohmann::json* rank = find("time_step_rank");
    const bool automatic = rank == nullptr || *rank == "auto";
    const int64_t dt_rank = automatic ? (d_model + 15) / 16 : integer("time_step_rank", 0);
    if (dt_rank != config_.model().dt_rank_or_default()) config_.set("model.dt_rank", dt_rank);
  }

  void of_mamba2() {
    const int64_t expand = integer("expand", 2), heads = integer("num_heads", 128);
    const int64_t d_inner = expand * config_.model().d_model, width = integer("head_dim", 64);
    if (heads * width != d_inner) {
      throw DataError(path_ + ": num_heads * head_dim = " + std::to_string(heads) + " * " +
                      std::to_string(width) + " is not expand * hidden_size = " + std::to_string(d_inner));
    }
    config_.set("model.expand", expand);
    config_.set("model.n_heads", heads);
    const int64_t groups = integer("n_groups", 8);
    if (groups > 1) throw DataError(path_ + ": n_groups is " + std::to_string(groups) + kGroups);
    config_.set("model.n_groups", groups);
    config_.propose("model.chunk_size", integer("chunk_size", 256));  // of no effect on what is computed
  }

  const nlohmann::json json_;
  const std::string path_;
  SettledConfig config_;
};

}  // namespace

HuggingfaceConfig read_huggingface_config(const std::string& text, const std::string& path,
                                          const Config& given) {
  nlohmann::json json = parse_json(quote_infinities(text), path, "copy it again from its source");
  if (!json.is_object()) throw DataError(path + ": is not a JSON object but " + shown_json(json));
  return Reader(std::move(json), path, given).run();
}

std::string huggingface_config(const ModelConfig& model, int64_t vocab_size) {
  const MixerKind kind = model.mixer_of(0);
  for (int64_t i = 0; i < model.layers; ++i) {
    const MixerKind other = model.mixer_of(i);
    if (other != kind || (kind != MixerKind::mamba && kind != MixerKind::mamba2)) {
      throw UsageError("layer " + std::to_string(i) + " is " + std::string(name_of(other)) +
                       ": Hugging Face's classes hold models of mamba alone or of mamba2 alone");
    }
  }
  if (model.mlp_ratio > 0) {
    throw UsageError("model.mlp_ratio = " + std::to_string(model.mlp_ratio) +
                     ": Hugging Face's Mamba and Mamba2 have no MLP behind the mixer");
  }
  const bool mamba2 = kind == MixerKind::mamba2;
  if (mamba2 && model.n_groups > 1) {
    throw UsageError("model.n_groups = " + std::to_string(model.n_groups) + kGroups);
  }
  Json json = {{"architectures", {mamba2 ? "Mamba2ForCausalLM" : "MambaForCausalLM"}},
               {"model_type", mamba2 ? "mamba2" : "mamba"},
               {"vocab_size", vocab_size},
               {"hidden_size", model.d_model},
               {"state_size", model.d_state},
               {"num_hidden_layers", model.layers},
               {"expand", model.expand},
               {"conv_kernel", model.d_conv}};
  if (mamba2) {
    json.update({{"num_heads", model.n_heads},
                 {"head_dim", model.head_dim()},
                 {"n_groups", model.n_groups},
                 {"chunk_size", model.chunk_size},
                 {"rms_norm", true}});
  } else {
    json.update({{"intermediate_size", model.d_inner()}, {"time_step_rank", model.dt_rank_or_default()}});
  }
  // No token of the vocabulary has a meaning that the model would know.
  json.update({{"layer_norm_epsilon", kNormEps},
               {"hidden_act", "silu"},
               {"use_bias", false},
               {"use_conv_bias", true},
               {"residual_in_fp32", true},
               {"initializer_range", model.init_std},
               {"tie_word_embeddings", true},
               {"bos_token_id", nullptr},
               {"eos_token_id", nullptr},
               {"pad_token_id", nullptr},
               {"torch_dtype", "float32"}});
  return json.dump(2) + "\n";
}

}  // namespace hax
