// A sweep from the shell, and the tables of its runs.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/base/json.h"
#include "tests/catch.h"
#include "tests/e2e/program.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kConfig = R"(name: tiny
task:
  name: joint_recall
  joint_recall: {n_context_min: 2, n_context_max: 2, n_key_min: 2, n_key_max: 2, n_value: 4}
data: {source: stream, seed: 3, train_examples: 0, valid_examples: 40, test_examples: 60}
model: {d_model: 16, d_state: 4, n_heads: 2}
train: {steps: 12, batch_size: 4, warmup_steps: 2, validate_every: 4, device: cpu}
)";

struct Sweep {
  TemporaryFolder folder;
  std::string config = folder.file("tiny.yaml"), data = folder.file("data"), out = folder.file("runs");
  Sweep() { write_file(config, kConfig); }

  ProgramResult run(const std::vector<std::string>& arguments) const {
    return run_script("sweep", arguments);
  }
  ProgramResult run_script(const std::string& script, const std::vector<std::string>& arguments) const {
    std::string command =
        "HAX=" + shell_quoted(HAX_BINARY) + " " + shell_quoted(HAX_SOURCE_DIR "/scripts/" + script);
    for (const auto& argument : arguments) command += " " + shell_quoted(argument);
    command += " >" + shell_quoted(folder.file("out")) + " 2>" + shell_quoted(folder.file("err"));
    const int raw = std::system(command.c_str());
    return {WIFEXITED(raw) ? WEXITSTATUS(raw) : -1, read_file(folder.file("out")),
            read_file(folder.file("err"))};
  }
  ProgramResult run() const {
    return run({"--config", config, "--vary", "train.lr=1e-3,2e-2", "--seeds", "1,2", "--at-once", "2",
                "--out", out, "--", "--set", "data.path=" + data});
  }
  double best(const std::string& name) const {
    return Json::parse(read_file(out + "/" + name + "/result.json"))["best_accuracy"];
  }
};

Json table_of(const std::vector<std::string>& arguments) {
  std::vector<std::string> all = {"table", "--json"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const auto result = run_hax(all);
  INFO(result.err);
  REQUIRE(result.status == 0);
  return Json::parse(result.out);
}

}  // namespace

TEST_CASE("a sweep over rates and seeds becomes a table that agrees with its runs", "[e2e]") {
  const Sweep sweep;
  REQUIRE(run_hax({"gen-data", "--config", sweep.config, "--out", sweep.data}).status == 0);
  const auto swept = sweep.run();
  INFO(swept.err);
  REQUIRE(swept.status == 0);
  CHECK(swept.out.find("best of 2 learning rates") != std::string::npos);
  for (const char* name :
       {"tiny_lr-1e-3_seed-1", "tiny_lr-1e-3_seed-2", "tiny_lr-2e-2_seed-1", "tiny_lr-2e-2_seed-2"}) {
    CAPTURE(name);
    REQUIRE(fs::exists(sweep.out + "/" + name + "/result.json"));
  }

  // Validations at steps 4, 8 and 12 of four runs.
  const auto curves = sweep.run_script("curves", {sweep.out});
  CHECK(curves.status == 0);
  CHECK(curves.out.rfind("run,step,accuracy,standard_error,loss\ntiny_lr-1e-3_seed-1,4,", 0) == 0);
  CHECK(std::count(curves.out.begin(), curves.out.end(), '\n') == 1 + 4 * 3);
  CHECK(sweep.run_script("curves", {}).status == 2);
  const auto nothing = sweep.run_script("curves", {sweep.data});
  CHECK(nothing.status == 3);
  CHECK(nothing.out.empty());
  CHECK(nothing.err.find(sweep.data + ": there is no run in it") != std::string::npos);

  // By hand: the rate with the better mean, its mean, and the interval with t(1 degree) = 12.7062.
  double mean[2], half_width[2];
  const char* rates[] = {"1e-3", "2e-2"};
  for (int i = 0; i < 2; ++i) {
    const double a = 100.0 * sweep.best("tiny_lr-" + std::string(rates[i]) + "_seed-1");
    const double b = 100.0 * sweep.best("tiny_lr-" + std::string(rates[i]) + "_seed-2");
    mean[i] = (a + b) / 2.0;
    half_width[i] = 12.70620474 * std::abs(a - b) / 2.0;
  }
  const int better = mean[1] > mean[0] ? 1 : 0;
  const Json best = table_of({sweep.out, "--best-of", "lr", "--bound"});
  REQUIRE(best["rows"].size() == 1);
  const Json row = best["rows"][0];
  CHECK(row["best lr"] == (better == 1 ? 2e-2 : 1e-3));
  CHECK(row["accuracy %"].get<double>() == Approx(mean[better]).epsilon(1e-9));
  CHECK(row["\u00b1 95 %"].get<double>() == Approx(half_width[better]).epsilon(1e-6).margin(1e-9));
  CHECK(row["n"] == 2);
  CHECK(row["seeds"] == "1 2");
  CHECK(row["steps"] == 12.0);
  CHECK(row["mode"] == "causal");
  CHECK(row["chance %"] == 25.0);
  CHECK(row["bound %"] == 100.0);  // a state of kilobytes holds four entries
  CHECK(best["caption"].get<std::string>().find("best of 2 learning rates") != std::string::npos);

  // Both rates, in their order.
  const Json both = table_of({"--rows", "lr", sweep.out})["rows"];
  REQUIRE(both.size() == 2);
  CHECK(both[0]["lr"] == 1e-3);
  for (int i = 0; i < 2; ++i) CHECK(both[i]["accuracy %"].get<double>() == Approx(mean[i]).epsilon(1e-9));

  // On the test split, measured once: the runs keep the results, and equal `hax eval`.
  const Json test = table_of({sweep.out, "--rows", "lr,train.seed", "--data", sweep.data})["rows"];
  REQUIRE(test.size() == 4);
  const std::string run = sweep.out + "/tiny_lr-1e-3_seed-1";
  const auto evaluated = run_hax({"eval", "--run", run, "--data", sweep.data, "--json"});
  REQUIRE(evaluated.status == 0);
  CHECK(test[0]["accuracy %"] == Json::parse(evaluated.out)["rows"][0]["accuracy %"]);
  std::string kept;
  for (const auto& name : names_in(run)) {
    if (name.rfind("eval-", 0) == 0) kept = run + "/" + name;
  }
  REQUIRE_FALSE(kept.empty());
  Json stored = Json::parse(read_file(kept));
  const auto keep = [&](const char* key, const Json& value) {
    stored[key] = value;
    stored["checksum"] = document_checksum(stored);
    write_file(kept, stored.dump());
  };
  keep("accuracy", 0.125);  // what is read the second time
  const std::vector<std::string> again = {sweep.out, "--rows", "lr,train.seed", "--data", sweep.data};
  CHECK(table_of(again)["rows"][0]["accuracy %"] == 12.5);
  keep("checkpoint", "of another step");
  CHECK(table_of(again)["rows"] == test);

  // A digit that somebody changed is not believed, and said once.
  std::string text = read_file(kept);
  const size_t digit = text.find("\"accuracy\": ") + 14;
  text[digit] = text[digit] == '.' ? '9' : '.';
  write_file(kept, text);
  std::vector<std::string> plain = again;
  plain.insert(plain.begin(), {"table", "--json"});
  const auto warned = run_hax(plain);
  CHECK(warned.status == 0);
  CHECK(Json::parse(warned.out)["rows"] == test);
  CHECK(contains(warned.err, kept + ": damaged: "));
  CHECK(run_hax(plain).err.find(kept) == std::string::npos);

  // A pivot for people.
  const auto pivot = run_hax({"table", sweep.out, "--columns", "lr", "--format", "latex"});
  CHECK(pivot.status == 0);
  CHECK(pivot.out.find("\\toprule\nname & mode & lr 0.001 & lr 0.02 \\\\\n") != std::string::npos);

  // Again: everything is kept, and a diverging value is counted.
  const auto before = fs::last_write_time(run + "/result.json");
  CHECK(sweep.run().status == 0);
  CHECK(fs::last_write_time(run + "/result.json") == before);
  const auto diverging =
      sweep.run({"--config", sweep.config, "--vary", "train.lr=1e15", "--out", sweep.out, "--", "--set",
                 "data.path=" + sweep.data, "--set", "train.warmup_steps=0"});
  CHECK(diverging.status == 2);  // it shares the cell and differs in train.warmup_steps too
  CHECK(diverging.err.find("1 diverged, 0 failed") != std::string::npos);
  CHECK(diverging.err.find("train.warmup_steps (2, 0)") != std::string::npos);
  const Json with = table_of({sweep.out, "--rows", "lr,warmup_steps"})["rows"];
  CHECK(with[2]["diverged"] == 1);
  CHECK(with[2]["accuracy %"] == 0.0);
}

TEST_CASE("sweeps and tables refuse what they cannot do", "[e2e]") {
  const Sweep sweep;
  write_file(sweep.folder.file("file"), "");
  fs::create_directories(sweep.folder.file("empty"));
  const std::vector<std::string> wrong[] = {
      {},
      {"--config", sweep.config},
      {"--config", "nowhere.yaml", "--out", sweep.out},
      {"--config", sweep.config, "--vary", "train.lr", "--out", sweep.out},
      {"--config", sweep.config, "--vary", "train.lr=1,1", "--out", sweep.out},
      {"--config", sweep.config, "--seeds", "1", "--vary", "train.seed=2", "--out", sweep.out},
      {"--config", sweep.config, "--at-once", "0", "--out", sweep.out},
  };
  for (const auto& arguments : wrong) {
    const auto result = sweep.run(arguments);
    CAPTURE(arguments, result.err);
    CHECK(result.status == 2);
    CHECK(result.out.empty());
    CHECK_FALSE(fs::exists(sweep.out));
  }
  const struct {
    std::vector<std::string> arguments;
    int status;
    std::string text;
  } cases[] = {
      {{"table"}, 2, "runs"},
      {{"table", "nowhere"}, 3, "nowhere: no such folder"},
      {{"table", sweep.folder.file("file")}, 3, "no such folder"},
      {{"table", sweep.folder.file("empty")}, 3, "holds no run"},
      {{"table", "nowhere", "--rows", "d_sate"}, 2, "did you mean model.d_state"},
      {{"table", "nowhere", "--rows", "seed"}, 2, "data.seed or train.seed"},
      {{"table", "nowhere", "--rows", "name", "--columns", "name"}, 2, "has a place in the table already"},
      {{"table", "nowhere", "--best-of", "name"}, 2, "has a place in the table already"},
      {{"table", "nowhere", "--format", "yaml"}, 2, "latex"},
      {{"table", "nowhere", "--json", "--format", "csv"}, 2, "--format"},
      {{"table", "nowhere", "--out", "/dev/null"}, 2, "/dev/null"},
  };
  for (const auto& c : cases) {
    const auto result = run_hax(c.arguments);
    CAPTURE(c.arguments, result.err);
    CHECK(result.status == c.status);
    CHECK(result.out.empty());
    CHECK(result.err.find(c.text) != std::string::npos);
  }
}

TEST_CASE("trainings that share a machine are timed together", "[e2e]") {
  const Sweep sweep;
  const auto timed =
      sweep.run_script("bench_at_once", {"--at-once", "1,2", "--", "--device", "cpu", "--config",
                                         sweep.config, "--steps", "2", "--warmup", "1"});
  INFO(timed.err);
  CHECK(timed.status == 0);
  CHECK(std::count(timed.out.begin(), timed.out.end(), '\n') == 3);
  CHECK(timed.out.find(" 1.00\n") != std::string::npos);  // one, beside one
  CHECK(sweep.run_script("bench_at_once", {"--at-once", "0"}).status == 2);
  const auto refused = sweep.run_script("bench_at_once", {"--at-once", "1", "--", "--steps", "0"});
  CHECK(refused.status == 1);
  CHECK(refused.err.find("--steps") != std::string::npos);
}

}  // namespace hax::test
