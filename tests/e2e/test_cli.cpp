// The program as a user meets it: data, training, evaluation, errors and exit statuses.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/catch.h"
#include "tests/e2e/program.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// 2 x 2 tables of 4 values: large enough to be a task, small enough to be learned in seconds.
constexpr const char* kConfig = R"(name: tiny
task:
  name: joint_recall
  joint_recall: {n_context_min: 2, n_context_max: 2, n_key_min: 2, n_key_max: 2, n_value: 4}
data: {seed: 3, train_examples: 1500, valid_examples: 100, test_examples: 100}
model:
  d_model: 32
  d_state: 16
  n_heads: 4
  sparse: {patterns: [lsh, key_selection], k: 16, hash_bits: 3}
train: {steps: 400, batch_size: 32, lr: 5e-3, warmup_steps: 50, validate_every: 100, target_accuracy: 0.97,
        checkpoint_every: 100, threads: 2, device: cpu}
)";

struct Workspace {
  TemporaryFolder folder;
  std::string config = folder.path() + "/config.yaml", data = folder.path() + "/data",
              run = folder.path() + "/run";
  Workspace() { write_file(config, kConfig); }
  ProgramResult generate() { return run_hax({"gen-data", "--config", config, "--out", data}); }
  ProgramResult train(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"train", "--config", config, "--set", "data.path=" + data,
                                          "--out", run};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_hax(arguments);
  }
};

}  // namespace

TEST_CASE("generate, train, evaluate: the model beats chance by a margin", "[e2e]") {
  Workspace w;
  const auto generated = w.generate();
  INFO(generated.err);
  REQUIRE(generated.status == 0);

  const auto trained = w.train();
  INFO(trained.err);
  REQUIRE(trained.status == 0);
  CHECK(trained.out.empty());
  CHECK(trained.err.find("other settings") == std::string::npos);
  for (const char* name : {"config.yaml", "metrics.jsonl", "result.json", "checkpoints/last.safetensors",
                           "checkpoints/best.safetensors"}) {
    CAPTURE(name);
    CHECK(fs::exists(w.run + "/" + name));
  }

  const auto evaluated = run_hax({"eval", "--run", w.run, "--data", w.data, "--format", "json"});
  INFO(evaluated.err);
  REQUIRE(evaluated.status == 0);
  const Json row = Json::parse(evaluated.out)["rows"][0];
  CHECK(row["run"] == "tiny");
  CHECK(row["examples"] == 100);
  CHECK(row["chance %"] == 25.0);
  CHECK(row["accuracy %"].get<double>() > 60.0);

  // The same table, sliced, from the checkpoint file, into a file.
  const std::string table = w.folder.path() + "/table.md";
  const auto sliced = run_hax({"eval", "--checkpoint", w.run + "/checkpoints/last.safetensors", "--data",
                               w.data, "--by", "n_context,n_key", "--format", "md", "--out", table});
  CHECK(sliced.status == 0);
  CHECK(sliced.out.empty());
  CHECK(read_file(table).find("| n_context |") != std::string::npos);

  // By distance, and what the wrong answers were: the shares of all kinds are the whole.
  const auto distances = run_hax({"eval", "--run", w.run, "--data", w.data, "--by", "distance", "--json"});
  CHECK(distances.status == 0);
  CHECK(Json::parse(distances.out)["rows"].size() >= 3);  // 2 to 20 tokens
  const auto wrong = run_hax({"eval", "--run", w.run, "--data", w.data, "--errors", "--json"});
  REQUIRE(wrong.status == 0);
  double share = 0.0;
  int64_t errors = 0;
  const Json kinds = Json::parse(wrong.out)["rows"];
  CHECK(kinds.size() == 4);
  for (const auto& kind : kinds) {
    CHECK(kind["accuracy %"].get<double>() == Approx(row["accuracy %"].get<double>()).epsilon(1e-6));
    share += kind["share of errors %"].get<double>();
    errors += kind["errors"].get<int64_t>();
  }
  CHECK(share == Approx(100.0).epsilon(1e-9));
  CHECK(static_cast<double>(errors) / 400.0 ==
        Approx(1.0 - row["accuracy %"].get<double>() / 100.0).epsilon(1e-6));
  CHECK(run_hax({"eval", "--run", w.run, "--data", w.data, "--by", "n_key,n_key"}).status == 2);

  // A finished run is left alone; another config is refused.
  const auto before = fs::last_write_time(w.run + "/checkpoints/last.safetensors");
  CHECK(w.train().status == 0);
  CHECK(fs::last_write_time(w.run + "/checkpoints/last.safetensors") == before);
  const auto changed = w.train({"--set", "train.lr=1e-4"});
  CHECK(changed.status == 2);
  CHECK(changed.err.find("train.lr") != std::string::npos);

  // Evaluating on the training data is refused.
  const auto cheating = run_hax({"eval", "--run", w.run, "--data", w.data, "--split", "train"});
  CHECK(cheating.status == 3);
  CHECK(cheating.out.empty());

  // Examples of other data that are among the training examples are told.
  const std::string other_data = w.folder.path() + "/other_data";
  REQUIRE(run_hax({"gen-data", "--config", w.config, "--set", "data.seed=4", "--out", other_data}).status ==
          0);
  for (const auto& command : {std::vector<std::string>{"eval", "--run"}, {"table"}}) {
    std::vector<std::string> arguments = command;
    arguments.insert(arguments.end(), {w.run, "--data"});
    const auto with = [&](const std::string& data_folder) {
      std::vector<std::string> all = arguments;
      all.push_back(data_folder);
      return run_hax(all).out;
    };
    CHECK(with(other_data).find(" was trained on ") != std::string::npos);
    CHECK(with(w.data).find(" was trained on ") == std::string::npos);
  }
  // So it is with those that a stream drew; what it was kept apart from is no secret.
  const std::string streamed = w.folder.path() + "/streamed";
  REQUIRE(run_hax({"train", "--config", w.config, "--set", "data.path=" + w.data, "--set",
                   "data.source=stream", "--set", "train.steps=100", "--out", streamed})
              .status == 0);
  const auto streamed_on = [&](const std::string& data_folder, const std::string& split) {
    return run_hax({"eval", "--run", streamed, "--data", data_folder, "--split", split}).out;
  };
  CHECK(streamed_on(other_data, "test").find(" was trained on ") != std::string::npos);
  CHECK(streamed_on(w.data, "train").find(" was trained on ") != std::string::npos);
  CHECK(streamed_on(w.data, "test").find(" was trained on ") == std::string::npos);
  CHECK(run_hax({"table", w.run, "--split", "valid"}).status == 2);

  // The data's own task goes into the run's config; another task is refused.
  const auto other_task = run_hax({"train", "--config", w.config, "--set", "task.name=mqar", "--set",
                                   "data.path=" + w.data, "--out", w.folder.path() + "/other"});
  CHECK(other_task.status == 2);
  CHECK(other_task.err.find("task.name") != std::string::npos);

  const auto inspected = run_hax({"inspect", w.data, "--example", "0"});
  CHECK(inspected.status == 0);
  CHECK(inspected.out.find("n_context") != std::string::npos);
  const auto checkpoint = run_hax({"inspect", w.run + "/checkpoints/best.safetensors"});
  CHECK(checkpoint.status == 0);
  CHECK(checkpoint.out.find("embeddings.weight") != std::string::npos);
}

TEST_CASE("a signal saves the state, and the same command goes on from there", "[e2e]") {
  Workspace w;
  REQUIRE(w.generate().status == 0);
  // `timeout` sends SIGTERM while the run of many steps is under way.
  const std::vector<std::string> arguments = {"train",
                                              "--config",
                                              w.config,
                                              "--set",
                                              "data.path=" + w.data,
                                              "--set",
                                              "train.steps=1000000",
                                              "--set",
                                              "train.target_accuracy=0",
                                              "--out",
                                              w.run};
  const auto stopped = run_hax(arguments, "timeout --preserve-status -s TERM 6 ");
  INFO(stopped.err);
  CHECK(stopped.status == 143);
  REQUIRE(fs::exists(w.run + "/checkpoints/last.safetensors"));
  CHECK_FALSE(fs::exists(w.run + "/result.json"));
  const auto again = run_hax({"train", "--out", w.run}, "timeout --preserve-status -s INT 4 ");
  INFO(again.err);
  CHECK(again.status == 130);
  CHECK(again.err.find("resuming at step") != std::string::npos);
}

TEST_CASE("streams of examples train too", "[e2e]") {
  Workspace w;
  REQUIRE(w.generate().status == 0);
  const auto trained =
      w.train({"--set", "data.source=stream", "--set", "train.steps=60", "--set", "train.target_accuracy=0"});
  INFO(trained.err);
  CHECK(trained.status == 0);
}

TEST_CASE("settings of the task that are not those of the data are told of", "[e2e]") {
  Workspace w;
  REQUIRE(w.generate().status == 0);
  const auto trained = w.train({"--set", "task.joint_recall.n_key_max=9", "--set", "train.steps=60"});
  INFO(trained.err);
  CHECK(trained.status == 0);
  CHECK(trained.err.find(w.data + ": was made with other settings of its task") != std::string::npos);
  CHECK(trained.err.find("task.joint_recall.n_key_max: 9 -> ") != std::string::npos);
}

TEST_CASE("divergence ends with status 4", "[e2e]") {
  Workspace w;
  REQUIRE(w.generate().status == 0);
  const auto diverged = w.train({"--set", "train.lr=1e15", "--set", "train.warmup_steps=0"});
  CHECK(diverged.status == 4);
  CHECK(diverged.err.find("diverged") != std::string::npos);
  CHECK(Json::parse(read_file(w.run + "/result.json"))["status"] == "diverged");
}

TEST_CASE("bad use ends with status 2 or 3 and says what would do", "[e2e]") {
  Workspace w;
  struct Case {
    std::vector<std::string> arguments;
    int status;
    std::string text;
  };
  const std::vector<Case> cases = {
      {{}, 2, "gen-data"},
      {{"fly"}, 2, "fly"},
      {{"train"}, 2, "--out"},
      {{"train", "--config", "nowhere.yaml", "--out", w.run}, 2, "nowhere.yaml"},
      {{"train", "--config", w.config, "--out", w.run}, 2, "data.path"},
      {{"train", "--config", w.config, "--set", "data.path=nowhere", "--out", w.run}, 3, "nowhere"},
      {{"train", "--config", w.config, "--set", "model.d_modell=4", "--out", w.run}, 2, "d_model"},
      {{"train", "--config", w.config, "--set", "model.n_heads=5", "--out", w.run}, 2, "n_heads"},
      {{"gen-data", "--config", w.config, "--set", "data.train_examples=100000", "--out", w.data},
       2,
       "distinct"},
      {{"eval", "--run", "nowhere", "--data", "nowhere"}, 3, "nowhere"},
      {{"eval", "--data", "nowhere"}, 2, "--run"},
      {{"inspect", w.config}, 3, "config.yaml"},
      {{"train", "--config", w.config, "--out", ""}, 2, "--out"},
      {{"eval", "--run", w.run, "--data", w.data, "--out", "/dev/null"}, 2, "/dev/null"},
      {{"config", "explain", "train.lrr"}, 2, "train.lr"},
      {{"config", "explain", "train.lr", "--markdown"}, 2, "--markdown"},
      {{"config", "check", "--config", w.config, "--set", "train.lr=nan"}, 2, "train.lr"},
  };
  for (const auto& c : cases) {
    const auto result = run_hax(c.arguments);
    CAPTURE(c.arguments, result.err);
    CHECK(result.status == c.status);
    CHECK(result.out.empty());
    CHECK(result.err.find(c.text) != std::string::npos);
  }
  CHECK_FALSE(fs::exists(w.run));
  CHECK_FALSE(fs::exists(w.data));
}

TEST_CASE("help, version and config print results on stdout", "[e2e]") {
  for (const char* command :
       {"gen-data", "train", "eval", "table", "config", "inspect", "bench", "convert"}) {
    const auto help = run_hax({command, "--help"});
    CAPTURE(command);
    CHECK(help.status == 0);
    CHECK(help.out.find("Example: hax " + std::string(command)) != std::string::npos);
  }
  if (fs::exists("/dev/full")) {
    const std::string full = shell_quoted(HAX_BINARY) + " --help >/dev/full 2>/dev/null";
    CHECK(WEXITSTATUS(std::system(full.c_str())) == 1);
  }
  const auto version = run_hax({"--version", "--json"});
  CHECK(version.status == 0);
  CHECK(Json::parse(version.out)["libtorch"].get<std::string>().rfind("2.11", 0) == 0);

  Workspace w;
  const auto shown = run_hax({"config", "show", "--config", w.config, "--set", "train.lr=0.25"});
  CHECK(shown.status == 0);
  CHECK(shown.out.find("lr: 0.25") != std::string::npos);
  write_file(w.folder.path() + "/resolved.yaml", shown.out);
  const auto again = run_hax({"config", "show", "--config", w.folder.path() + "/resolved.yaml"});
  CHECK(again.out == shown.out);
  CHECK(run_hax({"config", "explain", "train.lr"}).out.find("train.lr") != std::string::npos);
  CHECK(run_hax({"config", "check", "--config", w.config}).status == 0);
}

}  // namespace hax::test
