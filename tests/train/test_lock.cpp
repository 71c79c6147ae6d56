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
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = start_child([&] {
    const FileLock held = run.lock();
    if (::write(ready[1], "x", 1) != 1) return 1;
    while (true) ::pause();
  });
  char byte;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  ::close(ready[0]);
  ::close(ready[1]);
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

}  // namespace hax::test
