// One run folder has one writer. How the lock itself behaves: base/file_lock_test.cpp.
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/child.h"
#include "tests/support.h"
#include "tests/train/toy_run.h"

namespace hax::test {

TEST_CASE("a run that another process trains is refused, and goes on when that one is dead") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", lock = path + "/lock";
  const RunFolder run = RunFolder::create_or_resume(path, toy_config());
  CHECK_FALSE(run.is_training());
  const pid_t child = start_child_until_ready([&](const auto& ready) -> int {
    const FileLock held = run.lock();
    ready();
    while (true) ::pause();
  });
  CHECK(run.is_training());
  const std::string message = message_of<UsageError>([&] { run_toy(path, toy_config()); });
  CHECK(message.starts_with(lock + ": process " + std::to_string(child) + " on "));
  CHECK(message.ends_with(" is training this run; wait for it, or give another --out"));
  ::kill(child, SIGKILL);
  REQUIRE(wait_for(child) == 128 + SIGKILL);
  CHECK_FALSE(run.is_training());
  CHECK(contains(slurp(lock), std::to_string(child)));  // left behind, and passed over
  CHECK(run_toy(path, toy_config()).end == TrainEnd::finished);
  CHECK(slurp(lock).empty());
}

TEST_CASE("a run whose lock is a link is refused") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", outside = folder.file("outside");
  const RunFolder run = RunFolder::create_or_resume(path, toy_config());
  spill(outside, "kept");
  std::filesystem::create_symlink(outside, path + "/lock");
  CHECK(contains(message_of<RuntimeError>([&] { run_toy(path, toy_config()); }), path + "/lock"));
  CHECK_FALSE(run.is_training());
  CHECK(slurp(outside) == "kept");
}

TEST_CASE("a run whose folder was replaced stops, and writes nothing into the other one") {
  for (const OnSaveError policy : {OnSaveError::stop, OnSaveError::carry_on}) {
    const TemporaryFolder folder;
    const std::string path = folder.path() + "/run";
    Config config = toy_config(), other = toy_config();
    config.train.on_save_error = policy;
    other.train.seed += 1;
    int64_t last = 0;
    std::string metrics;
    const auto replace = [&](int64_t step) {
      last = step;
      if (step == 10 && metrics.empty()) {
        std::filesystem::rename(path, path + "-moved");
        run_toy(path, other, stop_at(20));
        metrics = slurp(path + "/metrics.jsonl");
      }
      return false;
    };
    const std::string message = message_of<RuntimeError>([&] { run_toy(path, config, replace); });
    CHECK(contains(message, path + "/lock: is not the file that this run has locked"));
    CHECK(last < 30);
    CHECK(slurp(path + "/metrics.jsonl") == metrics);
    CHECK_FALSE(std::filesystem::exists(path + "/result.json"));
    const std::string whole = folder.path() + "/whole", other_whole = folder.path() + "/other";
    run_toy(whole, config);
    run_toy(other_whole, other);
    CHECK(run_toy(path, other).end == TrainEnd::finished);
    CHECK(differences(path, other_whole).empty());
    CHECK(run_toy(path + "-moved", config).end == TrainEnd::finished);
    CHECK(differences(path + "-moved", whole).empty());
  }
}

TEST_CASE("a run whose lock is removed stops, for another may begin beside it") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", whole = folder.path() + "/whole";
  const auto remove = [&](int64_t step) {
    if (step == 10) std::filesystem::remove(path + "/lock");
    return false;
  };
  const std::string message = message_of<RuntimeError>([&] { run_toy(path, toy_config(), remove); });
  CHECK(message.starts_with(path + "/lock: is gone"));
  CHECK(run_toy(path, toy_config()).end == TrainEnd::finished);
  run_toy(whole, toy_config());
  CHECK(differences(path, whole).empty());
}

}  // namespace hax::test
