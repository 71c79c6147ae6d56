// A folder with the data and the config of a training that takes a moment a step and would go on for a long
// time.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/e2e/program.h"

namespace hax::test {

constexpr const char* kSmallConfig = R"(name: small
task:
  name: joint_recall
  joint_recall: {n_context_min: 2, n_context_max: 2, n_key_min: 2, n_key_max: 2, n_value: 4}
data: {seed: 3, train_examples: 200, valid_examples: 20, test_examples: 20}
model:
  d_model: 16
  d_state: 4
  n_heads: 2
  sparse: {patterns: [lsh, key_selection], k: 4, hash_bits: 2}
train: {steps: 1000000, batch_size: 8, lr: 5e-3, warmup_steps: 5, validate_every: 40, checkpoint_every: 10,
        log_every: 5, threads: 1, device: cpu}
)";

struct SmallRun {
  TemporaryFolder folder;
  std::string config = folder.path() + "/config.yaml", data = folder.path() + "/data",
              run = folder.path() + "/run", said = folder.path() + "/said";
  SmallRun() {
    spill(config, kSmallConfig);
    REQUIRE(run_hax({"gen-data", "--config", config, "--out", data}).status == 0);
  }
  std::vector<std::string> train(std::vector<std::string> more = {}, const std::string& out = "") const {
    std::vector<std::string> words = {
        "train", "--config", config, "--set", "data.path=" + data, "--out", out.empty() ? run : out};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  bool has_begun() const { return std::filesystem::exists(run + "/metrics.jsonl"); }
};

// Every file that must not differ.
inline void check_equal_runs(const std::string& a, const std::string& b) {
  for (const char* name :
       {"/checkpoints/last.safetensors", "/checkpoints/best.safetensors", "/metrics.jsonl", "/config.yaml"}) {
    CAPTURE(a, b, name);
    CHECK(slurp(a + name) == slurp(b + name));
  }
  for (const auto& folder : {b, b + "/checkpoints"}) {
    for (const auto& name : names_in(folder)) CHECK_FALSE(name.ends_with(".tmp"));
  }
}

}  // namespace hax::test
