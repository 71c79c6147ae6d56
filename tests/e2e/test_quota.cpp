// A quota that is used up (EDQUOT): on a local disk a write fails; NFS takes the write, and says so when the
// file is synced or closed. A real quota takes an administrator, so calls of the C library fail here:
// e2e/preload/quota.cpp.
#include <cstdlib>
#include <filesystem>

#include "tests/catch.h"
#include "tests/e2e/process.h"
#include "tests/e2e/program.h"
#include "tests/e2e/small_run.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCalls[] = {"write", "fsync", "close"};

// What `prepare` of a Process is: the quota is used up while `file` is there, and `call` shows it.
std::function<void()> with_quota(const std::string& call, const std::string& file) {
  return [call, file] {
    ::setenv("LD_PRELOAD", HAX_PRELOAD_QUOTA, 1);
    ::setenv("HAX_TEST_QUOTA_CALL", call.c_str(), 1);
    ::setenv("HAX_TEST_QUOTA_FILE", file.c_str(), 1);
  };
}

}  // namespace

TEST_CASE("a quota that is used up stops the run with its last good state, wherever it shows", "[e2e]") {
  SmallRun w;
  const std::vector<std::string> steps = {"--set", "train.steps=1000"};
  REQUIRE(run_hax(w.train(steps)).status == 0);
  for (const std::string call : kCalls) {
    CAPTURE(call);
    const std::string run = w.run + "-" + call, last = run + "/checkpoints/last.safetensors",
                      full = w.folder.path() + "/full-" + call, said = w.said + "-" + call;
    Process process(w.train(steps, run), said, with_quota(call, full));
    REQUIRE(Process::wait_until([&] { return fs::exists(last); }));
    spill(full, "");
    CHECK(process.wait() == 1);
    INFO(slurp(said));
    CHECK(contains(slurp(said), "Disk quota exceeded; the run stops at step "));
    CHECK(contains(slurp(said), " is saved; make it possible to write there and run the same command again"));
    for (const auto& name : names_in(run + "/checkpoints")) CHECK_FALSE(name.ends_with(".tmp"));
    CHECK(run_hax({"inspect", last}).status == 0);

    fs::remove(full);
    const auto again = run_hax(w.train(steps, run));
    INFO(again.err);
    CHECK(again.status == 0);
    CHECK(contains(again.err, "resuming at step "));
    check_equal_runs(w.run, run);
  }
}

TEST_CASE("a quota that is used up for a while is waited for where the config says so", "[e2e]") {
  SmallRun w;
  const std::vector<std::string> patient = {"--set", "train.steps=2000", "--set",
                                            "train.on_save_error=continue"};
  REQUIRE(run_hax(w.train(patient)).status == 0);
  for (const std::string call : kCalls) {
    CAPTURE(call);
    const std::string run = w.run + "-" + call, full = w.folder.path() + "/full-" + call,
                      said = w.said + "-" + call;
    Process process(w.train(patient, run), said, with_quota(call, full));
    REQUIRE(Process::wait_until([&] { return fs::exists(run + "/checkpoints/last.safetensors"); }));
    spill(full, "");
    REQUIRE(Process::wait_until(
        [&] { return contains(slurp(said), "training goes on (train.on_save_error = continue)"); }));
    fs::remove(full);
    CHECK(process.wait() == 0);
    INFO(slurp(said));
    CHECK(contains(slurp(said), "Disk quota exceeded"));
    CHECK(slurp(w.run + "/metrics.jsonl") == slurp(run + "/metrics.jsonl"));
  }
}

TEST_CASE("a quota without room for the next checkpoint is found before the first step", "[e2e]") {
  SmallRun w;
  const std::string full = w.folder.path() + "/full", metrics = w.run + "/metrics.jsonl";
  spill(full, "");
  Process anew(w.train(), w.said, with_quota("write", full));
  CHECK(anew.wait() == 1);
  CHECK(contains(slurp(w.said), w.run + "/config.yaml: Disk quota exceeded"));
  CHECK(names_in(w.run).empty());

  REQUIRE(run_hax(w.train({"--max-time", "1s"})).status == 5);
  const std::string before = slurp(metrics);
  Process resumed(w.train(), w.said, with_quota("write", full));
  CHECK(resumed.wait() == 1);
  INFO(slurp(w.said));
  CHECK(contains(slurp(w.said), "cannot make room for "));
  CHECK(
      contains(slurp(w.said), w.run + "/checkpoints: Disk quota exceeded; a run of this config needs room"));
  CHECK(slurp(metrics) == before);
}

}  // namespace hax::test
