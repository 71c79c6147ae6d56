// Round trips between the three forms, and every refusal of weights that do not fit.
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "tests/catch.h"
#include "tests/convert/files.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;

ModelConfig base_config() {
  ModelConfig m;
  m.layers = 3;
  m.d_model = 12;
  m.expand = 4;
  m.d_state = 5;
  m.n_heads = 6;
  m.d_conv = 3;
  return m;
}

ModelConfig hax_config() {
  ModelConfig m = base_config();
  m.sparse.patterns = {PatternKind::lsh, PatternKind::key_selection};
  m.sparse.d_qk = 7;
  m.sparse.hash_bits = 3;
  return m;
}

CheckpointInfo info_for(const ModelConfig& model, int64_t vocab_size) {
  CheckpointInfo info;
  info.config.model = model;
  info.data = data_spec(vocab_size);
  info.step = 12;
  return info;
}

void write_hax(const std::string& path, const LanguageModel& model, bool with_optimizer) {
  OptimizerState state{at::ones_like(model.parameters().flat()), at::ones_like(model.parameters().flat())};
  write_checkpoint(path, model, info_for(model.config(), model.vocab_size()),
                   with_optimizer ? &state : nullptr);
}

bool said(const std::vector<std::string>& lines, const std::string& part) {
  return std::any_of(lines.begin(), lines.end(), [&](const auto& line) { return contains(line, part); });
}

}  // namespace

TEST_CASE("a checkpoint comes back from Hugging Face's folder and from official names bit for bit") {
  const TemporaryFolder folder;
  const auto model = moved_model(base_config(), 20);
  write_hax(folder.file("run"), model, true);
  const auto lines = convert(options(folder.file("run"), folder.file("hf"), WeightForm::huggingface));
  CHECK(said(lines, "optimiser"));
  CHECK(names_in(folder.file("hf")) == std::set<std::string>{"config.json", "model.safetensors"});
  CHECK(same_tensors(read_tensors(folder.file("hf") + "/model.safetensors"), weights_of(model, "backbone.")));
  CHECK(Safetensors::open(folder.file("hf") + "/model.safetensors").metadata().at("format") == "pt");

  convert(options(folder.file("hf"), folder.file("back"), WeightForm::hax));
  const auto back = read_checkpoint(folder.file("back"), at::kCPU);
  CHECK(same_tensors(weights_of(*back.model), weights_of(model)));
  CHECK(back.info.config.model.d_state == 5);
  CHECK(back.info.step == 0);
  CHECK(back.info.data.vocab_size == 20);
  CHECK(back.info.data.task == "joint_recall");
  CHECK_FALSE(back.optimizer.exp_avg.defined());

  convert(options(folder.file("hf"), folder.file("official"), WeightForm::official));
  CHECK(same_tensors(read_tensors(folder.file("official")), weights_of(model)));
  convert(options(folder.file("official"), folder.file("hf2"), WeightForm::huggingface));
  CHECK(slurp(folder.file("hf2") + "/config.json") == slurp(folder.file("hf") + "/config.json"));
}

TEST_CASE("groups have no tensor of their own and are given") {
  const TemporaryFolder folder;
  ModelConfig config = base_config();
  config.n_groups = 2;
  const auto model = moved_model(config, 20);
  write_tensors(folder.file("official"), weights_of(model));
  ConvertOptions o = options(folder.file("official"), folder.file("back"), WeightForm::hax);
  o.config.model.n_groups = 2;
  convert(o);
  const auto back = read_checkpoint(folder.file("back"), at::kCPU);
  CHECK(back.info.config.model.d_state == 5);
  CHECK(same_tensors(weights_of(*back.model), weights_of(model)));
  o.to = WeightForm::huggingface;
  o.out = folder.file("hf");
  CHECK(contains(message_of<UsageError>([&] { convert(o); }), "model.n_groups = 2"));
  CHECK_FALSE(fs::exists(o.out));
}

TEST_CASE("prefixes, old names and a tied output matrix are read and written") {
  const TemporaryFolder folder;
  const auto model = moved_model(base_config(), 20);
  const auto weights = weights_of(model);
  SECTION("written with a prefix, as a causal-LM class names them") {
    write_hax(folder.file("run"), model, false);
    ConvertOptions o = options(folder.file("run"), folder.file("prefixed"), WeightForm::official);
    o.prefix = "backbone.";
    convert(o);
    auto wanted = weights_of(model, "backbone.");
    wanted.emplace("lm_head.weight", weights.at("embeddings.weight"));
    CHECK(same_tensors(read_tensors(folder.file("prefixed")), wanted));
    convert(options(folder.file("prefixed"), folder.file("back"), WeightForm::hax));
  }
  SECTION("the first release's embedding.weight") {
    auto old = weights_of(model, "model.backbone.");
    auto node = old.extract("model.backbone.embeddings.weight");
    node.key() = "model.backbone.embedding.weight";
    old.insert(std::move(node));
    write_tensors(folder.file("old"), old);
    convert(options(folder.file("old"), folder.file("back"), WeightForm::hax));
  }
  CHECK(same_tensors(weights_of(*read_checkpoint(folder.file("back"), at::kCPU).model), weights));
}

TEST_CASE("half precision is read exactly") {
  const auto dtype = GENERATE(at::kBFloat16, at::kHalf);
  const TemporaryFolder folder;
  const auto model = moved_model(base_config(), 20);
  TensorMap narrow, wide;
  for (const auto& [name, value] : weights_of(model)) {
    narrow.emplace(name, value.to(dtype));
    wide.emplace(name, value.to(dtype).to(at::kFloat));
  }
  write_tensors(folder.file("narrow"), narrow);
  convert(options(folder.file("narrow"), folder.file("back"), WeightForm::hax));
  CHECK(same_tensors(weights_of(*read_checkpoint(folder.file("back"), at::kCPU).model), wide));
}

TEST_CASE("sparse models keep their branch under official names and lose it, when told to, elsewhere") {
  const TemporaryFolder folder;
  const auto model = moved_model(hax_config(), 20);
  write_hax(folder.file("run"), model, false);
  const auto lines = convert(options(folder.file("run"), folder.file("official"), WeightForm::official));
  CHECK(said(lines, "hash matrices"));
  CHECK(same_tensors(read_tensors(folder.file("official")), weights_of(model)));

  ConvertOptions o = options(folder.file("official"), folder.file("back"), WeightForm::hax);
  o.configured = true;
  o.config.model.sparse = model.config().sparse;
  o.config.model.sparse.d_qk = 0;
  convert(o);
  const auto back = read_checkpoint(folder.file("back"), at::kCPU);
  CHECK(same_tensors(weights_of(*back.model), weights_of(model)));
  CHECK(back.info.config.model.sparse.d_qk == 7);
  CHECK(back.draws->stored().size() == 3);

  ConvertOptions to_hf = options(folder.file("run"), folder.file("hf"), WeightForm::huggingface);
  CHECK(contains(message_of<UsageError>([&] { convert(to_hf); }), "--drop-sparse"));
  CHECK_FALSE(fs::exists(folder.file("hf")));
  to_hf.drop_sparse = true;
  CHECK(said(convert(to_hf), "sparse branch"));
  auto dense = weights_of(model, "backbone.");
  std::erase_if(dense, [](const auto& entry) {
    return contains(entry.first, "mixer.E") || contains(entry.first, "xx_proj") ||
           contains(entry.first, "dx_proj");
  });
  CHECK(same_tensors(read_tensors(folder.file("hf") + "/model.safetensors"), dense));
}

TEST_CASE("weights that do not fit are refused by name, and nothing is written") {
  const TemporaryFolder folder;
  const auto weights = weights_of(moved_model(base_config(), 20));
  struct Case {
    const char* what;
    std::function<void(TensorMap&)> damage;
    std::vector<std::string> parts;
  };
  const std::vector<Case> cases = {
      {"missing", [](TensorMap& t) { t.erase("layers.1.mixer.D"); }, {"layers.1.mixer.D", "missing"}},
      {"missing layer norm", [](TensorMap& t) { t.erase("norm_f.weight"); }, {"norm_f.weight", "missing"}},
      {"unknown",
       [](TensorMap& t) { t["layers.0.mixer.in_proj.bias"] = at::zeros({3}); },
       {"layers.0.mixer.in_proj.bias", "no place"}},
      {"shape",
       [](TensorMap& t) { t["layers.2.mixer.D"] = at::zeros({7}); },
       {"layers.2.mixer.D", "[7]", "[6]"}},
      {"other layers differ",
       [](TensorMap& t) { t["layers.1.mixer.dt_bias"] = at::zeros({4}); },
       {"model.n_heads", "6", "4"}},
      {"dimensions",
       [](TensorMap& t) { t["layers.0.mixer.conv1d.weight"] = at::zeros({5}); },
       {"layers.0.mixer.conv1d.weight", "dimensions"}},
      {"dtype",
       [](TensorMap& t) { t["norm_f.weight"] = at::zeros({12}, at::kLong); },
       {"norm_f.weight", "I64"}},
      {"head", [](TensorMap& t) { t["lm_head.weight"] = t["embeddings.weight"] + 1; }, {"lm_head.weight"}},
      {"two embeddings",
       [](TensorMap& t) {
         t["other.embeddings.weight"] = at::zeros({20, 12});
       },
       {"2 embeddings"}},
      {"no layers",
       [](TensorMap& t) { std::erase_if(t, [](auto& e) { return e.first[0] == 'l'; }); },
       {"layers.0.mixer"}},
      {"unknown mixer", [](TensorMap& t) { t["layers.3.mixer.w"] = at::zeros({3}); }, {"layers.3.mixer."}},
      {"d_inner",
       [](TensorMap& t) { t["layers.0.mixer.norm.weight"] = at::zeros({50}); },
       {"50", "multiple"}},
      {"MLP",
       [](TensorMap& t) {
         t["layers.0.mlp.gate_proj.weight"] = at::zeros({300, 12});
       },
       {"layers.0.mlp.gate_proj.weight", "300"}},
      {"branch without patterns",
       [](TensorMap& t) {
         t["layers.0.mixer.xx_proj.weight"] = at::zeros({8, 48});
       },
       {"model.sparse.patterns"}},
  };
  for (const auto& c : cases) {
    INFO(c.what);
    auto damaged = weights;
    c.damage(damaged);
    write_tensors(folder.file("damaged"), damaged);
    const auto o = options(folder.file("damaged"), folder.file("out"), WeightForm::hax);
    const std::string message = message_of<Error>([&] { convert(o); });
    CAPTURE(message);
    CHECK(contains(message, folder.file("damaged")));
    for (const auto& part : c.parts) CHECK(contains(message, part));
    CHECK_FALSE(fs::exists(folder.file("out")));
  }
}

TEST_CASE("options that contradict the input or mean nothing are refused") {
  const TemporaryFolder folder;
  write_tensors(folder.file("official"), weights_of(moved_model(base_config(), 20)));
  write_hax(folder.file("run"), moved_model(base_config(), 20), false);
  convert(options(folder.file("run"), folder.file("hf"), WeightForm::huggingface));
  const auto refused = [&](const ConvertOptions& o, const std::string& part) {
    const std::string message = message_of<UsageError>([&] { convert(o); });
    CAPTURE(message);
    CHECK(contains(message, part));
  };
  ConvertOptions o = options(folder.file("official"), folder.file("out"), WeightForm::hax);
  SECTION("a width that the weights contradict") {
    o.config.model.d_model = 16;
    refused(o, "model.d_model = 16");
  }
  SECTION("a mixer that the weights contradict") {
    o.config.model.mixer = {MixerKind::mamba};
    refused(o, "model.mixer = [mamba]");
  }
  SECTION("groups that do not divide") {
    o.config.model.n_groups = 3;
    refused(o, "model.n_groups");
  }
  SECTION("a task with more tokens than the embedding") {
    o.data = data_spec(21);
    refused(o, "21 tokens");
  }
  SECTION("the same form") {
    o.to = WeightForm::official;
    refused(o, "official already");
  }
  SECTION("a prefix elsewhere") {
    o.prefix = "backbone.";
    refused(o, "--prefix");
  }
  SECTION("a sparse branch elsewhere") {
    o.drop_sparse = true;
    refused(o, "--drop-sparse");
  }
  SECTION("a config for a checkpoint") {
    o.in = folder.file("run");
    o.to = WeightForm::official;
    o.configured = true;
    refused(o, "carries its own config");
  }
  SECTION("a config where none is needed") {
    o.in = folder.file("hf");
    o.to = WeightForm::official;
    o.configured = true;
    refused(o, "leave them out");
  }
  SECTION("what config.json contradicts") {
    o.in = folder.file("hf");
    o.config.model.n_heads = 3;
    refused(o, "model.n_heads = 3");
  }
  CHECK_FALSE(fs::exists(folder.file("out")));
  SECTION("outputs that exist") {
    spill(folder.file("out"), "precious");
    refused(o, "exists already");
    o.to = WeightForm::huggingface;
    refused(o, "exists already");
    CHECK(slurp(folder.file("out")) == "precious");
    fs::create_directory(folder.file("full"));
    spill(folder.file("full") + "/notes", "precious");
    o.out = folder.file("full");
    refused(o, "exists already");
    fs::create_symlink("nowhere", folder.file("link"));
    o.out = folder.file("link");
    o.to = WeightForm::hax;
    refused(o, "exists already");
    fs::create_directory(folder.file("empty"));
    o.out = folder.file("empty");
    o.to = WeightForm::huggingface;
    convert(o);
    CHECK(fs::exists(folder.file("empty") + "/config.json"));
  }
}

TEST_CASE("inputs of no form are refused") {
  const TemporaryFolder folder;
  const auto message = [&](const std::string& in) {
    return message_of<Error>([&] { convert(options(in, folder.file("out"), WeightForm::official)); });
  };
  CHECK(contains(message(folder.file("nowhere")), "nowhere"));
  fs::create_directory(folder.file("empty"));
  CHECK(contains(message(folder.file("empty")), "config.json"));
  write_tensors(folder.file("other"), {{"weight", at::zeros({2})}});
  CHECK(contains(message(folder.file("other")), "embeddings.weight"));
  spill(folder.file("text"), "not a tensor file");
  CHECK(contains(message(folder.file("text")), "safetensors"));
  fs::create_directory(folder.file("run"));
  spill(folder.file("run") + "/config.yaml", "");
  CHECK(contains(message(folder.file("run")), "run folder"));
}

}  // namespace hax::test
