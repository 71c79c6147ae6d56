// config.json, key by key, and folders whose two files disagree.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/convert/huggingface.h"
#include "tests/catch.h"
#include "tests/convert/files.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

ModelConfig mamba2_config() {
  ModelConfig m;
  m.layers = 3;
  m.d_model = 12;
  m.expand = 4;
  m.d_state = 5;
  m.n_heads = 6;
  m.d_conv = 3;
  m.chunk_size = 16;
  m.init_std = 0.25;
  return m;
}

ModelConfig mamba_config() {
  ModelConfig m = mamba2_config();
  m.mixer = {MixerKind::mamba};
  m.dt_rank = 2;
  return m;
}

}  // namespace

TEST_CASE("config.json of Mamba2 says the model's sizes") {
  CHECK(Json::parse(huggingface_config(mamba2_config(), 20)) == Json::parse(R"({
    "architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2", "vocab_size": 20, "hidden_size": 12,
    "state_size": 5, "num_hidden_layers": 3, "expand": 4, "conv_kernel": 3, "num_heads": 6, "head_dim": 8,
    "n_groups": 1, "chunk_size": 16, "rms_norm": true, "layer_norm_epsilon": 1e-5, "hidden_act": "silu",
    "use_bias": false, "use_conv_bias": true, "residual_in_fp32": true, "initializer_range": 0.25,
    "tie_word_embeddings": true, "bos_token_id": null, "eos_token_id": null, "pad_token_id": null,
    "torch_dtype": "float32"})"));
}

TEST_CASE("config.json of Mamba says the model's sizes") {
  CHECK(Json::parse(huggingface_config(mamba_config(), 20)) == Json::parse(R"({
    "architectures": ["MambaForCausalLM"], "model_type": "mamba", "vocab_size": 20, "hidden_size": 12,
    "state_size": 5, "num_hidden_layers": 3, "expand": 4, "conv_kernel": 3, "intermediate_size": 48,
    "time_step_rank": 2, "layer_norm_epsilon": 1e-5, "hidden_act": "silu", "use_bias": false,
    "use_conv_bias": true, "residual_in_fp32": true, "initializer_range": 0.25, "tie_word_embeddings": true,
    "bos_token_id": null, "eos_token_id": null, "pad_token_id": null, "torch_dtype": "float32"})"));
}

TEST_CASE("models without a class of Hugging Face's are refused") {
  ModelConfig mixed = mamba2_config();
  mixed.mixer = {MixerKind::mamba2, MixerKind::attention};
  CHECK(contains(message_of<UsageError>([&] { huggingface_config(mixed, 20); }), "layer 1 is attention"));
  ModelConfig attention = mamba2_config();
  attention.mixer = {MixerKind::attention};
  CHECK(contains(message_of<UsageError>([&] { huggingface_config(attention, 20); }), "layer 0 is attention"));
  ModelConfig mlp = mamba2_config();
  mlp.mlp_ratio = 4;
  CHECK(contains(message_of<UsageError>([&] { huggingface_config(mlp, 20); }), "model.mlp_ratio"));
}

TEST_CASE("a written config.json reads back as the same model") {
  for (const ModelConfig& model : {mamba2_config(), mamba_config()}) {
    const auto back = read_huggingface_config(huggingface_config(model, 20), "config.json", Config());
    const ModelConfig& m = back.config.model;
    CHECK(back.vocab_size == 20);
    CHECK(back.tied);
    CHECK((m.mixer == model.mixer));
    CHECK(m.layers == model.layers);
    CHECK(m.d_model == model.d_model);
    CHECK(m.expand == model.expand);
    CHECK(m.d_state == model.d_state);
    CHECK(m.d_conv == model.d_conv);
    if (model.mixer[0] == MixerKind::mamba2) {
      CHECK(m.n_heads == model.n_heads);
      CHECK(m.n_groups == model.n_groups);
      CHECK(m.chunk_size == model.chunk_size);
    } else {
      CHECK(m.dt_rank_or_default() == 2);
    }
  }
}

TEST_CASE("keys left out of config.json have transformers' defaults") {
  const auto mamba = read_huggingface_config(R"({"model_type": "mamba"})", "config.json", Config());
  const ModelConfig& m = mamba.config.model;
  CHECK(mamba.vocab_size == 50280);
  CHECK(mamba.tied);
  CHECK(m.d_model == 768);
  CHECK(m.d_inner() == 1536);
  CHECK(m.d_state == 16);
  CHECK(m.layers == 32);
  CHECK(m.d_conv == 4);
  CHECK(m.dt_rank_or_default() == 48);
  const auto mamba2 =
      read_huggingface_config(R"({"model_type": "mamba2", "n_groups": 1})", "config.json", Config());
  const ModelConfig& m2 = mamba2.config.model;
  CHECK(mamba2.vocab_size == 32768);
  CHECK_FALSE(mamba2.tied);
  CHECK(m2.d_model == 4096);
  CHECK(m2.d_inner() == 8192);
  CHECK(m2.d_state == 128);
  CHECK(m2.layers == 64);
  CHECK(m2.n_heads == 128);
  CHECK(m2.head_dim() == 64);
  CHECK(m2.chunk_size == 256);
  CHECK(contains(message_of<DataError>(
                     [] { read_huggingface_config(R"({"model_type": "mamba2"})", "config.json", Config()); }),
                 "n_groups is 8"));
}

TEST_CASE("every spelling of no limit on time steps is read") {
  for (const char* limit :
       {"[0.0, Infinity]", "[0, Infinity]", R"([0.0, {"__float__": "Infinity"}])", "null"}) {
    CAPTURE(limit);
    auto text = huggingface_config(mamba2_config(), 20);
    text.insert(1, std::string("\"a\\\"Infinity\": \"Infinity\", \"time_step_limit\": ") + limit + ",");
    CHECK(read_huggingface_config(text, "config.json", Config()).vocab_size == 20);
  }
}

TEST_CASE("what hax has not is refused by its key in config.json") {
  struct Case {
    const char* key;
    Json value;
    const char* part;
  };
  const std::vector<Case> cases = {
      {"model_type", "llama", "llama"},
      {"use_bias", true, "use_bias"},
      {"use_conv_bias", false, "use_conv_bias"},
      {"hidden_act", "gelu", "hidden_act"},
      {"hidden_act", 3, "hidden_act"},
      {"layer_norm_epsilon", 1e-6, "layer_norm_epsilon"},
      {"rms_norm", false, "rms_norm"},
      {"n_groups", 2, "n_groups"},
      {"quantization_config", {{"bits", 4}}, "quantization_config"},
      {"time_step_limit", {0.0, 0.5}, "time_step_limit"},
      {"time_step_limit", {0.1, "Infinity"}, "time_step_limit"},
      {"time_step_limit", "none", "time_step_limit"},
      {"head_dim", 9, "num_heads * head_dim"},
      {"expand", 1.5, "expand"},
      {"hidden_size", -12, "hidden_size"},
      {"hidden_size", "12", "hidden_size"},
      {"num_hidden_layers", 1e12, "num_hidden_layers"},
      {"tie_word_embeddings", "yes", "tie_word_embeddings"},
  };
  for (const auto& c : cases) {
    Json json = Json::parse(huggingface_config(mamba2_config(), 20));
    json[c.key] = c.value;
    const std::string message =
        message_of<DataError>([&] { read_huggingface_config(json.dump(), "folder/config.json", Config()); });
    CAPTURE(c.key, c.value.dump(), message);
    CHECK(contains(message, "folder/config.json"));
    CHECK(contains(message, c.part));
  }
  Json mamba = Json::parse(huggingface_config(mamba_config(), 20));
  mamba["intermediate_size"] = 50;
  CHECK(contains(message_of<DataError>([&] { read_huggingface_config(mamba.dump(), "c", Config()); }),
                 "intermediate_size"));
  for (const char* text : {"", "[1]", "{\"model_type\": mamba}"}) {
    CHECK(contains(message_of<DataError>([&] { read_huggingface_config(text, "c", Config()); }), "JSON"));
  }
}

TEST_CASE("folders whose files disagree are refused") {
  const TemporaryFolder folder;
  const auto model = moved_model(mamba2_config(), 20);
  Json json = Json::parse(huggingface_config(mamba2_config(), 20));
  auto weights = weights_of(model, "backbone.");
  const auto message = [&] {
    spill(folder.file("config.json"), json.dump());
    if (!weights.empty()) write_tensors(folder.file("model.safetensors"), weights, {{"format", "pt"}});
    return message_of<DataError>([&] { open_huggingface(folder.path(), Config()); });
  };
  CHECK(message().empty());
  SECTION("another vocabulary") {
    json["vocab_size"] = 21;
    CHECK(contains(message(), "vocab_size is 21"));
  }
  SECTION("another state") {
    json["state_size"] = 1 << 20;
    CHECK(contains(message(), "model.d_state = 1048576"));
  }
  SECTION("a width that is hax's default") {
    json["hidden_size"] = 64;
    json["expand"] = 2;
    json["head_dim"] = 16;
    json["num_heads"] = 8;
    CHECK(contains(message(), "model.d_model = 64"));
  }
  SECTION("another depth") {
    json["num_hidden_layers"] = 4;
    CHECK(contains(message(), "model.layers = 4"));
  }
  SECTION("another class") {
    json = Json::parse(huggingface_config(mamba_config(), 20));
    CHECK(contains(message(), "model.mixer = [mamba]"));
  }
  SECTION("an output matrix that may be another one") {
    json["tie_word_embeddings"] = false;
    CHECK(contains(message(), "lm_head.weight"));
    weights["lm_head.weight"] = weights.at("backbone.embeddings.weight");
    CHECK(message().empty());
    weights["lm_head.weight"] = weights.at("backbone.embeddings.weight") + 1e-3;
    CHECK(contains(message(), "lm_head.weight differs"));
  }
  SECTION("no weights") {
    fs::remove(folder.file("model.safetensors"));
    weights.clear();
    CHECK(contains(message(), "is missing"));
    spill(folder.file("model.safetensors.index.json"), "{}");
    CHECK(contains(message(), "split into parts"));
  }
}

}  // namespace hax::test
