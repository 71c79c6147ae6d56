// The program killed, told to stop, out of time, out of room and out of listeners: what is left is whole.
#include <sys/resource.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/base/random.h"
#include "tests/catch.h"
#include "tests/e2e/process.h"
#include "tests/e2e/program.h"
#include "tests/e2e/small_run.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Each costs a start of the program; the environment may ask for more.
int number_of_kills() {
  const char* text = std::getenv("HAX_KILLS");
  return text != nullptr ? std::atoi(text) : 40;
}

}  // namespace

TEST_CASE("killed again and again at random moments, training ends with the same bytes", "[e2e]") {
  SmallRun w;
  // Every step saves and most validate: most of the time is spent on what a kill could break.
  const std::vector<std::string> often = {
      "--set", "train.steps=40",         "--set", "train.checkpoint_every=1",
      "--set", "train.validate_every=2", "--set", "train.log_every=1"};
  REQUIRE(run_hax(w.train(often)).status == 0);
  RandomStream random({1, Purpose::test, 0, 0, 0});
  const int wanted = number_of_kills();
  int kills = 0, starts = 0, runs = 0;
  for (; kills < wanted; ++runs) {
    const std::string path = w.folder.path() + "/run" + std::to_string(runs);
    for (bool ended = false; !ended; ++starts) {
      Process process(w.train(often, path), w.said);
      // The delay counts from the moment at which the run's folder is in use, or from the start.
      if (random.below(8) > 0)
        Process::wait_until([&] { return fs::exists(path + "/lock") && fs::file_size(path + "/lock") > 0; });
      std::this_thread::sleep_for(std::chrono::microseconds(random.below(250000)));
      if (kills < wanted) process.send(SIGKILL);
      const int status = process.wait();
      ended = status != 128 + SIGKILL;
      if (ended) REQUIRE(status == 0);
      if (!ended) ++kills;
    }
    check_equal_runs(w.run, path);
  }
  CHECK(starts >= wanted);
}

TEST_CASE("each signal saves the state and has its status, in training and in validation", "[e2e]") {
  const std::pair<int, int> signals[] = {{SIGINT, 130}, {SIGTERM, 143}, {SIGUSR1, 138}, {SIGHUP, 129}};
  SmallRun w;
  for (const bool validating : {false, true}) {
    for (const auto& [signal, status] : signals) {
      CAPTURE(signal, validating);
      // Validation of the 20 examples one by one after every step takes nearly all the time.
      std::vector<std::string> more = {"--set", "train.validate_every=1", "--set", "train.eval_batch_size=1"};
      if (!validating) more.clear();
      const std::string run = w.run + (validating ? "-validating" : "");
      const std::string metrics = run + "/metrics.jsonl";
      const auto size = fs::exists(metrics) ? fs::file_size(metrics) : 0;
      Process process(w.train(more, run), w.said);
      REQUIRE(
          Process::wait_until([&] { return fs::exists(metrics) && fs::file_size(metrics) > size + 200; }));
      process.send(signal);
      CHECK(process.wait() == status);
      REQUIRE(fs::exists(run + "/checkpoints/last.safetensors"));
      CHECK_FALSE(fs::exists(run + "/result.json"));
      const auto inspected = run_hax({"inspect", run + "/checkpoints/last.safetensors", "--json"});
      REQUIRE(inspected.status == 0);
    }
  }
  CHECK(contains(slurp(w.said), "with the state saved"));
  CHECK(contains(slurp(w.said), "resuming at step"));
}

TEST_CASE("a second signal ends at once, and what is left goes on", "[e2e]") {
  SmallRun w;
  // A validation of one by one that is asked to stop ends between two examples; two signals leave it no time.
  Process process(w.train(), w.said);
  REQUIRE(Process::wait_until([&] { return fs::exists(w.run + "/checkpoints/last.safetensors"); }));
  process.send(SIGINT);
  process.send(SIGTERM);
  const int status = process.wait();
  CHECK((status == 128 + SIGINT || status == 128 + SIGTERM));
  const auto again = run_hax(w.train({"--max-time", "1s"}));
  INFO(again.err);
  CHECK(again.status == 5);
  CHECK(contains(again.err, "resuming at step"));
}

TEST_CASE("signals in data generation and evaluation leave nothing half-made", "[e2e]") {
  SmallRun w;
  const std::string big = w.folder.path() + "/big", table = w.folder.path() + "/table.csv";
  for (const auto& [signal, status] : {std::pair{SIGTERM, 143}, {SIGINT, 130}, {SIGUSR1, 138}}) {
    CAPTURE(signal);
    Process generating({"gen-data", "--config", w.config, "--out", big, "--threads", "1", "--set",
                        "task.joint_recall.n_context_max=16", "--set", "task.joint_recall.n_key_max=16",
                        "--set", "task.joint_recall.n_value=16", "--set", "data.train_examples=3000000"},
                       w.said);
    std::this_thread::sleep_for(std::chrono::milliseconds(3000));
    generating.send(signal);
    CHECK(generating.wait() == status);
    CHECK_FALSE(fs::exists(big + "/manifest.json"));
  }
  CHECK(contains(slurp(w.said), "no dataset was written"));

  REQUIRE(run_hax(w.train({"--set", "train.steps=20"})).status == 0);
  std::vector<std::string> evaluate = {"eval",     "--data", w.data,  "--batch-size", "1",
                                       "--format", "csv",    "--out", table};
  for (int i = 0; i < 400; ++i) evaluate.insert(evaluate.end(), {"--run", w.run});
  Process evaluating(evaluate, w.said);
  std::this_thread::sleep_for(std::chrono::milliseconds(4000));
  evaluating.send(SIGTERM);
  CHECK(evaluating.wait() == 143);
  CHECK_FALSE(fs::exists(table));
}

TEST_CASE("a folder that a dataset is generated into is refused to a second gen-data until the first ends",
          "[e2e]") {
  SmallRun w;
  const std::string out = w.folder.path() + "/shared", marker = out + "/generation_in_progress";
  const std::vector<std::string> small = {"gen-data", "--config", w.config, "--out", out};
  for (const auto& [signal, status] : {std::pair{SIGTERM, 143}, {SIGKILL, 128 + SIGKILL}}) {
    CAPTURE(signal);
    Process generating({"gen-data", "--config", w.config, "--out", out, "--threads", "1", "--set",
                        "task.joint_recall.n_context_max=16", "--set", "task.joint_recall.n_key_max=16",
                        "--set", "task.joint_recall.n_value=16", "--set", "data.train_examples=3000000"},
                       w.said);
    REQUIRE(Process::wait_until([&] { return fs::exists(marker) && fs::file_size(marker) > 0; }));
    const std::string process = slurp(marker);
    const auto refused = run_hax(small);
    INFO(refused.err);
    CHECK(refused.status == 2);
    CHECK(contains(refused.err, marker + ": process " + process.substr(0, process.find(' ')) + " on "));
    CHECK(fs::exists(marker));
    generating.send(signal);
    CHECK(generating.wait() == status);
    CHECK(fs::exists(out) == (signal == SIGKILL));
    CHECK(run_hax(small).status == 0);
    CHECK(names_in(out) == names_in(w.data));
    CHECK(run_hax({"inspect", out}).status == 0);
    fs::remove_all(out);
  }
}

TEST_CASE("--max-time saves and ends with a status of its own", "[e2e]") {
  SmallRun w;
  const auto stopped = run_hax(w.train({"--max-time", "2s"}));
  INFO(stopped.err);
  CHECK(stopped.status == 5);
  CHECK(contains(stopped.err, "stopped by --max-time at step "));
  CHECK(fs::exists(w.run + "/checkpoints/last.safetensors"));
  CHECK_FALSE(fs::exists(w.run + "/result.json"));
  for (const char* wrong : {"90", "1:30", "soon", "-5s"}) {
    const auto refused = run_hax(w.train({std::string("--max-time=") + wrong}));
    CAPTURE(wrong, refused.err);
    CHECK(refused.status == 2);
    CHECK(contains(refused.err, "3h55m"));
  }
  // A run that ends before its time is over has ended.
  CHECK(run_hax(w.train({"--max-time", "1:00:00", "--set", "train.steps=12"}, w.run + "-short")).status == 0);
}

TEST_CASE("closed and broken stdout and stderr kill no run, and nothing said lands in a file", "[e2e]") {
  SmallRun w;
  const std::vector<std::string> twenty = {"--set", "train.steps=20"};
  REQUIRE(run_hax(w.train(twenty)).status == 0);
  const auto quoted = [&](const std::string& run) {
    std::string command = shell_quoted(HAX_BINARY);
    for (const auto& word : w.train(twenty, run)) command += " " + shell_quoted(word);
    return command;
  };
  int i = 0;
  for (const std::string streams : {" >&- 2>&-", " <&- >&- 2>&-", " 2>&-", " 2>/dev/full"}) {
    CAPTURE(streams);
    const std::string run = w.run + std::to_string(i++);
    CHECK(WEXITSTATUS(std::system(("exec " + quoted(run) + streams).c_str())) == 0);
    check_equal_runs(w.run, run);
  }
  // A reader that is gone before anything is said.
  const std::string piped = w.run + "-piped", status = w.folder.path() + "/status";
  REQUIRE(std::system(
              ("( " + quoted(piped) + " 2>&1; echo $? >" + shell_quoted(status) + " ) | true").c_str()) == 0);
  REQUIRE(Process::wait_until([&] { return fs::exists(status) && fs::file_size(status) > 0; }));
  CHECK(slurp(status) == "0\n");
  check_equal_runs(w.run, piped);
  // Results that nobody can read are an error.
  CHECK(WEXITSTATUS(std::system((shell_quoted(HAX_BINARY) + " --version >&- 2>/dev/null").c_str())) == 1);
}

TEST_CASE("verify-resume trains, compares and says what is equal", "[e2e]") {
  SmallRun w;
  const std::string runs = w.folder.path() + "/runs";
  const auto verified = run_hax({"verify-resume", "--config", w.config, "--set", "data.path=" + w.data,
                                 "--at", "13", "--steps", "25", "--keep", runs, "--json"});
  INFO(verified.err);
  REQUIRE(verified.status == 0);
  const Json rows = Json::parse(verified.out)["rows"];
  CHECK(rows.size() >= 10);
  for (const auto& row : rows) {
    CHECK(row["equal"] == "yes");
    CHECK(row["resumed from"] == (row["interrupted"] == "stopped" ? 13 : 10));
  }
  CHECK(fs::exists(runs + "/killed/checkpoints/last.safetensors"));
  const auto streamed = run_hax({"verify-resume", "--config", w.config, "--set", "data.path=" + w.data,
                                 "--set", "data.source=stream", "--at", "13", "--steps", "25"});
  INFO(streamed.err);
  CHECK(streamed.status == 0);
  CHECK(contains(streamed.out, "metrics.jsonl"));
  const auto refused = run_hax(
      {"verify-resume", "--config", w.config, "--set", "data.path=" + w.data, "--at", "25", "--steps", "25"});
  CHECK(refused.status == 2);
  CHECK(contains(refused.err, "--at 25"));
}

TEST_CASE("a limit on the size of files is found before the first step", "[e2e]") {
  SmallRun w;
  Process process(w.train(), w.said, [] {
    const rlimit limit{20000, 20000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  });
  CHECK(process.wait() == 1);
  CHECK(contains(slurp(w.said), "checkpoints"));
  CHECK_FALSE(w.has_begun());
}

TEST_CASE("a disk that is full, or fills up, is named, and the run goes on when there is room", "[e2e]") {
  SmallRun w;
  const std::string disk = w.folder.path() + "/disk", run = disk + "/run",
                    status = w.folder.path() + "/status";
  make_directories(disk);
  std::string train = shell_quoted(HAX_BINARY);
  for (const auto& word : w.train({}, run)) train += " " + shell_quoted(word);
  // A small disk of one's own takes a mount namespace, which not every machine grants.
  const auto on_disk = [&](const std::string& size, const std::string& script) {
    const std::string inside =
        "mount -t tmpfs -o size=" + size + " none " + shell_quoted(disk) + " || exit 99; " + script;
    const int raw = std::system(("unshare --map-root-user --mount sh -c " + shell_quoted(inside) + " >" +
                                 shell_quoted(w.said) + " 2>&1")
                                    .c_str());
    return WIFEXITED(raw) ? WEXITSTATUS(raw) : -1;
  };
  if (on_disk("1m", "true") != 0) {
    WARN("skipped: this machine lets the test mount no disk of its own: " << slurp(w.said));
    return;
  }
  CHECK(on_disk("300k", train + "; code=$?; test ! -e " + shell_quoted(run + "/metrics.jsonl") +
                            " || exit 98; exit $code") == 1);
  INFO(slurp(w.said));
  CHECK(contains(slurp(w.said), "No space left on device"));

  const std::string last = shell_quoted(run + "/checkpoints/last.safetensors");
  CHECK(on_disk("2m", train + " & while ! test -e " + last + "; do sleep 0.05; done; cat /dev/zero >" +
                          shell_quoted(disk + "/fill") + "; wait $!; test $? = 1 || exit 97; rm " +
                          shell_quoted(disk + "/fill") + "; " + train + " --max-time 1s") == 5);
  CHECK(contains(slurp(w.said), "No space left on device"));
  CHECK(contains(slurp(w.said), "is saved; make it possible"));
  CHECK(contains(slurp(w.said), "resuming at step"));
}

TEST_CASE("a finished run without its checkpoints says how to get them back", "[e2e]") {
  SmallRun w;
  const std::vector<std::string> twenty = {"--set", "train.steps=20"};
  REQUIRE(run_hax(w.train(twenty)).status == 0);
  fs::remove_all(w.run + "/checkpoints");
  const auto trained = run_hax(w.train(twenty)),
             evaluated = run_hax({"eval", "--run", w.run, "--data", w.data});
  CHECK(trained.status == 0);
  CHECK(contains(trained.err, "remove " + w.run + "/result.json"));
  CHECK(evaluated.status == 3);
  CHECK(contains(evaluated.err, "remove " + w.run + "/result.json"));
  fs::remove(w.run + "/result.json");
  CHECK(run_hax(w.train(twenty)).status == 0);
  CHECK(run_hax({"eval", "--run", w.run, "--data", w.data}).status == 0);
}

}  // namespace hax::test
