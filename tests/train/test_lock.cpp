// One run folder has one writer, also where the file system has no locks.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <functional>

#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/support.h"
#include "tests/train/toy_run.h"

namespace hax::test {
namespace {

std::string host() {
  char name[256] = {};
  REQUIRE(::gethostname(name, sizeof name - 1) == 0);
  return name;
}

// Lets flock() fail as on a file system without locks, from now on in this process.
bool forbid_flock() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_flock, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOLCK),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program = {static_cast<unsigned short>(std::size(filter)), filter};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

constexpr int kNoFilter = 99;

// The status of a child in which flock() fails: the number of the first check that does not hold, from 1.
int without_flock(const std::vector<std::function<bool()>>& checks) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (!forbid_flock()) ::_exit(kNoFilter);
    int number = 0;
    for (const auto& holds : checks) {
      ++number;
      try {
        if (!holds()) ::_exit(number);
      } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
        ::_exit(number);
      }
    }
    ::_exit(0);
  }
  int raw = 0;
  REQUIRE(::waitpid(child, &raw, 0) == child);
  return WIFEXITED(raw) ? WEXITSTATUS(raw) : -1;
}

}  // namespace

TEST_CASE("the lock names its holder, ends with it, and is not left by the dead") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", lock = path + "/lock";
  const RunFolder run = RunFolder::create_or_resume(path, toy_config());
  {
    const auto held = run.lock();
    CHECK(slurp(lock) == std::to_string(::getpid()) + " " + host() + "\n");
    const std::string message = message_of<UsageError>([&] { run_toy(path, toy_config()); });
    CHECK(contains(message, "process " + std::to_string(::getpid()) + " on " + host()));
    CHECK(run.is_training());
  }
  CHECK(slurp(lock).empty());
  CHECK_FALSE(run.is_training());

  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const auto held = run.lock();
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    while (true) ::pause();
  }
  char byte;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK(contains(message_of<UsageError>([&] { run.lock(); }), "process " + std::to_string(child) + " on "));
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(contains(slurp(lock), std::to_string(child)));  // left behind, and passed over
  CHECK(run_toy(path, toy_config()).end == TrainEnd::finished);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_CASE("where the file system has no locks, the holder's name counts") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run", lock = path + "/lock";
  const RunFolder run = RunFolder::create_or_resume(path, toy_config());
  const pid_t gone = ::fork();
  REQUIRE(gone >= 0);
  if (gone == 0) ::_exit(0);
  REQUIRE(::waitpid(gone, nullptr, 0) == gone);
  const std::string here = " " + host() + "\n", living = std::to_string(::getpid()) + here;
  const auto refused_for = [&](const std::string& holder) {
    spill(lock, holder);
    const std::string message = message_of<UsageError>([&] { run.lock(); });
    return contains(message, "process " + holder.substr(0, holder.find(' '))) &&
           contains(message, "if it is gone, remove " + lock) && slurp(lock) == holder && run.is_training();
  };
  const auto taken_from = [&](const std::string& holder) {
    spill(lock, holder);
    if (run.is_training()) return false;
    {
      const auto held = run.lock();
      if (slurp(lock) != std::to_string(::getpid()) + here) return false;
    }
    return slurp(lock).empty();
  };
  const int status = without_flock({
      [&] { return taken_from(""); },
      [&] { return refused_for(living); },
      [&] { return refused_for("1 another-host\n"); },
      [&] { return taken_from(std::to_string(gone) + here); },
      [&] { return taken_from("no process\n"); },
  });
  if (status == kNoFilter) {
    WARN("system calls cannot be filtered here, so a file system without locks was not tried");
    return;
  }
  CHECK(status == 0);
}

TEST_CASE("a lock file that is a link or a pipe is refused") {
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
