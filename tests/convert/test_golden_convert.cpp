// Converted models compute what the code they come from computed: the official code and transformers.
#include <regex>

#include "tests/catch.h"
#include "tests/convert/files.h"
#include "tests/model/golden.h"

namespace hax::test {
namespace {

constexpr double kOutput = 6e-6;  // as for models that never were converted

TensorMap golden_weights(const Safetensors& file) {
  TensorMap weights;
  for (const auto& info : file.tensors()) {
    if (info.name.rfind("weights/", 0) == 0)
      weights.emplace(info.name.substr(8), load_tensor(file, info.name));
  }
  return weights;
}

}  // namespace

TEST_CASE("official weights give the official logits after conversion", "[golden]") {
  const auto files = language_model_files();
  REQUIRE(!files.empty());
  for (const auto& name : files) {
    CAPTURE(name);
    const GoldenLanguageModel golden(name);
    const TemporaryFolder folder;
    const auto weights = golden_weights(golden.file);
    write_tensors(folder.file("official"), weights);

    // Given is what weights do not tell, and nothing of what they do.
    ConvertOptions o = options(folder.file("official"), folder.file("checkpoint"), WeightForm::hax);
    o.configured = true;
    o.config.model.mode = golden.config.model.mode;
    o.config.model.sparse = golden.config.model.sparse;
    o.config.model.attention = golden.config.model.attention;
    o.config.model.chunk_size = golden.config.model.chunk_size;
    convert(o);

    const auto loaded = read_checkpoint(folder.file("checkpoint"), at::kCPU);
    const ModelConfig &found = loaded.info.config.model, &wanted = golden.config.model;
    CHECK(found.layers == wanted.layers);
    CHECK(found.d_model == wanted.d_model);
    CHECK(found.d_inner() == wanted.d_inner());
    CHECK(found.d_state == wanted.d_state);
    CHECK(found.d_conv == wanted.d_conv);
    CHECK(found.d_qk() == wanted.d_qk());
    for (int64_t i = 0; i < wanted.layers; ++i) CHECK(found.mixer_of(i) == wanted.mixer_of(i));
    const auto input = to_device(golden.batch, at::kCPU);
    const auto logits = loaded.model->forward(input, golden.draws(""), at::kFloat).logits;
    const double error = relative_error(logits, golden.at_scored(load_tensor(golden.file, "logits")));
    CAPTURE(error);
    CHECK(error <= kOutput);

    // And back: the same tensors under the same names.
    convert(options(folder.file("checkpoint"), folder.file("again"), WeightForm::official));
    CHECK(same_tensors(read_tensors(folder.file("again")), weights));
  }
}

TEST_CASE("folders of transformers give its logits after conversion", "[golden]") {
  const auto files = golden_files("huggingface_");
  REQUIRE(!files.empty());
  for (const auto& name : files) {
    CAPTURE(name);
    const auto golden = Safetensors::open(golden_path(name));
    const TemporaryFolder folder;
    const auto weights = golden_weights(golden);
    const std::string config = golden.metadata().at("config");
    spill(folder.file("config.json"), config);
    write_tensors(folder.file("model.safetensors"), weights, {{"format", "pt"}});
    convert(options(folder.path(), folder.file("checkpoint"), WeightForm::hax));

    const auto tokens = load_tensor(golden, "tokens");  // (B, L)
    const int64_t B = tokens.size(0), L = tokens.size(1);
    ModelInput input;
    input.tokens = tokens.flatten();
    input.scored = at::arange(B * L);
    input.layout = layout_of(std::vector<int64_t>(static_cast<size_t>(B), L), L);
    const auto loaded = read_checkpoint(folder.file("checkpoint"), at::kCPU);
    const auto logits = loaded.model->forward(input, *loaded.draws, at::kFloat).logits;
    const double error = relative_error(logits, load_tensor(golden, "logits").flatten(0, 1));
    CAPTURE(error);
    CHECK(error <= kOutput);

    // And back: what transformers would read is what it wrote.
    convert(options(folder.file("checkpoint"), folder.file("again"), WeightForm::huggingface));
    auto tied = weights;
    tied.erase("lm_head.weight");
    CHECK(same_tensors(read_tensors(folder.file("again") + "/model.safetensors"), tied));
    const auto was = nlohmann::json::parse(std::regex_replace(config, std::regex("Infinity"), "0"));
    const auto is = nlohmann::json::parse(slurp(folder.file("again") + "/config.json"));
    for (const char* key : {"architectures", "model_type", "vocab_size", "hidden_size", "state_size",
                            "num_hidden_layers", "expand", "conv_kernel", "layer_norm_epsilon", "hidden_act",
                            "use_bias", "use_conv_bias", "residual_in_fp32"}) {
      CAPTURE(key);
      CHECK(is.at(key) == was.at(key));
    }
    const bool mamba2 = was.at("model_type") == "mamba2";
    const std::vector<std::string> own =
        mamba2 ? std::vector<std::string>{"num_heads", "head_dim", "n_groups", "chunk_size", "rms_norm"}
               : std::vector<std::string>{"intermediate_size", "time_step_rank"};
    for (const auto& key : own) {
      CAPTURE(key);
      CHECK(is.at(key) == was.at(key));
    }
    CHECK(is.at("tie_word_embeddings") == true);
  }
}

}  // namespace hax::test
