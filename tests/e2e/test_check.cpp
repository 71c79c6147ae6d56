// `hax check` on configs, on a run, and on what it cannot check.
#include <nlohmann/json.hpp>

#include "tests/catch.h"
#include "tests/e2e/program.h"

namespace hax::test {
namespace {

const std::string kQuick = HAX_SOURCE_DIR "/configs/quick/joint_recall_hax.yaml";
// No dataset: examples are drawn from the task.
const std::string kNoData = "data.path=no-such-folder";

}  // namespace

TEST_CASE("a config is checked before anything is trained", "[e2e]") {
  const auto causal = run_hax({"check", "--config", kQuick, "--set", kNoData, "--examples", "20"});
  INFO(causal.out + causal.err);
  CHECK(causal.status == 0);
  CHECK(contains(causal.out, "pass              causality"));
  CHECK(contains(causal.out, "pass              gradients"));
  CHECK(contains(causal.out, "20 examples of task joint_recall"));

  const auto paper =
      run_hax({"check", "--config", kQuick, "--set", kNoData, "--set", "model.mode=paper", "--json"});
  INFO(paper.out + paper.err);
  CHECK(paper.status == 0);
  const auto json = nlohmann::json::parse(paper.out);
  CHECK(json["ok"] == true);
  bool seen = false;
  for (const auto& check : json["checks"]) {
    if (check["name"] != "causality") continue;
    seen = true;
    CHECK(check["verdict"] == "expected_failure");
    CHECK(contains(check["detail"].get<std::string>(), "layer 0: lsh looks ahead"));
    CHECK(contains(check["detail"].get<std::string>(), "layer 1: key_selection looks ahead"));
  }
  CHECK(seen);
}

TEST_CASE("a run is checked with its weights and its data", "[e2e]") {
  const TemporaryFolder folder;
  const std::string data = folder.file("data"), run = folder.file("run"), config = folder.file("config.yaml");
  spill(config,
        "task: {name: joint_recall, joint_recall: {n_context_min: 2, n_context_max: 3, n_key_min: 2, "
        "n_key_max: 3}}\n"
        "data: {train_examples: 60, valid_examples: 20, test_examples: 0, path: " +
            data +
            "}\n"
            "model: {d_model: 16, d_state: 4, n_heads: 2, sparse: {patterns: [lsh], k: 4, hash_bits: 2}}\n"
            "train: {steps: 20, warmup_steps: 5, batch_size: 8, device: cpu}\n");
  REQUIRE(run_hax({"gen-data", "--config", config, "--out", data}).status == 0);
  REQUIRE(run_hax({"train", "--config", config, "--out", run}).status == 0);
  const auto checked = run_hax({"check", run});
  INFO(checked.out + checked.err);
  CHECK(checked.status == 0);
  CHECK(contains(checked.out, "20 examples of " + data + " (valid)"));

  CHECK(run_hax({"check"}).status == 2);
  CHECK(run_hax({"check", run, "--set", "train.lr=1"}).status == 2);
  CHECK(run_hax({"check", run, "--config", config}).status == 2);
  CHECK(run_hax({"check", data}).status == 3);
}

}  // namespace hax::test
