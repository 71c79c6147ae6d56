// The constructive solution as a user meets it: no training, every answer right.
#include <nlohmann/json.hpp>

#include "tests/catch.h"
#include "tests/e2e/program.h"

namespace hax::test {

TEST_CASE("the constructive solution is saved by train and right in eval", "[e2e]") {
  const TemporaryFolder folder;
  const std::string config = HAX_SOURCE_DIR "/configs/quick/constructive.yaml";
  const std::string data = folder.file("data"), run = folder.file("run");
  const auto generated = run_hax({"gen-data", "--config", config, "--out", data, "--set",
                                  "task.joint_recall={n_context_min: 7, n_context_max: 7, n_key_min: 11, "
                                  "n_key_max: 11}",
                                  "--set", "data={train_examples: 1, valid_examples: 8, test_examples: 50}"});
  INFO(generated.err);
  REQUIRE(generated.status == 0);
  const auto trained = run_hax({"train", "--config", config, "--set", "data.path=" + data, "--out", run});
  INFO(trained.err);
  REQUIRE(trained.status == 0);
  const auto evaluated = run_hax({"eval", "--run", run, "--data", data, "--format", "json"});
  INFO(evaluated.err);
  REQUIRE(evaluated.status == 0);
  const auto row = nlohmann::json::parse(evaluated.out)["rows"][0];
  CHECK(row["accuracy %"] == 100.0);
  CHECK(row["examples"] == 50);
  CHECK(row["step"] == 0);
  CHECK(row["state bytes"].get<int64_t>() - row["key bytes"].get<int64_t>() == 4 * (3 * (3 + 4) + 4 + 1));

  const auto narrow = run_hax({"train", "--config", config, "--set", "data.path=" + data, "--set",
                               "model.d_model=16", "--out", folder.file("narrow")});
  CHECK(narrow.status == 2);
  CHECK(narrow.err.find("model.d_model = 16") != std::string::npos);
}

}  // namespace hax::test
