// `hax convert` as a user meets it: weights leave and come back, and evaluate to the same table.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/base/safetensors.h"
#include "tests/catch.h"
#include "tests/e2e/program.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kConfig = R"(
task:
  name: joint_recall
  joint_recall: {n_context_min: 2, n_context_max: 2, n_key_min: 2, n_key_max: 2, n_value: 4}
data: {train_examples: 300, valid_examples: 50, test_examples: 50}
model: {d_model: 24, d_state: 6, n_heads: 4}
train: {steps: 30, batch_size: 16, warmup_steps: 5, validate_every: 30, threads: 2, device: cpu}
)";

struct Trained {
  TemporaryFolder folder;
  std::string config = folder.file("config.yaml"), data = folder.file("data"), run = folder.file("run"),
              best = run + "/checkpoints/best.safetensors";
  explicit Trained(const std::string& patterns) {
    write_file(config, kConfig);
    REQUIRE(run_hax({"gen-data", "--config", config, "--out", data}).status == 0);
    const auto trained = run_hax({"train", "--config", config, "--set", "data.path=" + data, "--set",
                                  "model.sparse.patterns=" + patterns, "--out", run});
    INFO(trained.err);
    REQUIRE(trained.status == 0);
  }
  Json row(const std::string& checkpoint) const {
    const auto result = run_hax({"eval", "--checkpoint", checkpoint, "--data", data, "--format", "json"});
    INFO(result.err);
    REQUIRE(result.status == 0);
    return Json::parse(result.out)["rows"][0];
  }
};

void check_same_evaluation(const Json& a, const Json& b) {
  for (const char* key : {"accuracy %", "examples", "mode"}) {
    CAPTURE(key);
    CHECK(a.at(key) == b.at(key));
  }
}

}  // namespace

TEST_CASE("a base model goes to Hugging Face's folder and back", "[e2e]") {
  const Trained t("[]");
  const std::string hf = t.folder.file("hf"), back = t.folder.file("back.safetensors");
  const auto out = run_hax({"convert", t.best, hf, "--to", "huggingface"});
  INFO(out.err);
  REQUIRE(out.status == 0);
  CHECK(out.out.empty());
  CHECK(Json::parse(read_file(hf + "/config.json"))["num_heads"] == 4);
  CHECK(Safetensors::open(hf + "/model.safetensors").contains("backbone.layers.1.mixer.dt_bias"));
  const auto in = run_hax({"convert", "--config", t.config, hf, back, "--to", "hax"});
  INFO(in.err);
  REQUIRE(in.status == 0);
  check_same_evaluation(t.row(back), t.row(t.best));

  // What is there stays.
  const auto again = run_hax({"convert", "--config", t.config, hf, back, "--to", "hax"});
  CHECK(again.status == 2);
  CHECK(again.err.find("exists already") != std::string::npos);
  CHECK(run_hax({"convert", t.best, hf, "--to", "huggingface"}).status == 2);
}

TEST_CASE("a sparse model goes to official names and back", "[e2e]") {
  const Trained t("[sliding_window, key_selection]");
  const std::string official = t.folder.file("official.safetensors"),
                    back = t.folder.file("back.safetensors");
  REQUIRE(run_hax({"convert", t.best, official, "--to", "official", "--prefix", "backbone."}).status == 0);
  CHECK(Safetensors::open(official).contains("backbone.layers.0.mixer.dx_proj_3.bias"));
  CHECK(Safetensors::open(official).contains("lm_head.weight"));

  const auto untold = run_hax({"convert", official, back, "--to", "hax", "--config", t.config});
  CHECK(untold.status == 2);
  CHECK(untold.err.find("model.sparse.patterns") != std::string::npos);
  const auto told = run_hax({"convert", official, back, "--to", "hax", "--config", t.run + "/config.yaml"});
  INFO(told.err);
  REQUIRE(told.status == 0);
  check_same_evaluation(t.row(back), t.row(t.best));

  const auto refused = run_hax({"convert", t.best, t.folder.file("hf"), "--to", "huggingface"});
  CHECK(refused.status == 2);
  CHECK(refused.err.find("--drop-sparse") != std::string::npos);
  CHECK_FALSE(fs::exists(t.folder.file("hf")));
}

TEST_CASE("bad use of convert is refused", "[e2e]") {
  const TemporaryFolder folder;
  CHECK(run_hax({"convert"}).status == 2);
  CHECK(run_hax({"convert", "a", "b", "--to", "pytorch"}).status == 2);
  const auto nowhere = run_hax({"convert", folder.file("nowhere"), folder.file("out"), "--to", "hax"});
  CHECK(nowhere.status == 3);
  CHECK(nowhere.err.find("nowhere") != std::string::npos);
  write_file(folder.file("text"), "no tensors here");
  CHECK(run_hax({"convert", folder.file("text"), folder.file("out"), "--to", "hax"}).status == 3);
  CHECK(names_in(folder.path()) == std::set<std::string>{"text"});
}

}  // namespace hax::test
