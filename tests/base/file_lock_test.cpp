// One holder at a time, among threads, among processes, and where the file system has no locks.
#include "lib/base/file_lock.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/child.h"
#include "tests/support.h"

namespace hax::test {
namespace {

constexpr int kContenders = 4, kTurns = 10;

std::string on_this_host(pid_t process) {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0) throw std::runtime_error("no host name");
  return std::to_string(process) + " " + name + "\n";
}

// Asks until it has the lock, and calls `inside` with it. False when it was refused in other words than
// these.
bool take_turn(const std::string& path, const std::function<void()>& inside, bool remove = false) {
  while (true) {
    try {
      FileLock held(path, "is at work");
      if (remove) held.remove_at_end();
      inside();
      return true;
    } catch (const UsageError& e) {
      if (!contains(e.what(), path + ": ") || !contains(e.what(), "process") ||
          !std::string(e.what()).ends_with(" is at work"))
        return false;
    }
  }
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
  return status_of_child([&] {
    if (!forbid_flock()) return kNoFilter;
    int number = 0;
    for (const auto& holds : checks) {
      ++number;
      if (!holds()) return number;
    }
    return 0;
  });
}

}  // namespace

TEST_CASE("a lock names its holder, refuses others, and ends with its life") {
  const TemporaryFolder folder;
  const std::string path = folder.file("lock");
  CHECK_FALSE(FileLock::is_held(path));
  {
    const FileLock held(path, "is at work");
    CHECK(slurp(path) == on_this_host(::getpid()));
    CHECK(FileLock::is_held(path));
    const std::string holder = on_this_host(::getpid());
    const std::string name = "process " + std::to_string(::getpid()) + " on " +
                             holder.substr(holder.find(' ') + 1, holder.size() - holder.find(' ') - 2);
    CHECK(message_of<UsageError>([&] { FileLock(path, "is at work"); }) ==
          path + ": " + name + " is at work");
  }
  CHECK(slurp(path).empty());
  CHECK_FALSE(FileLock::is_held(path));
  CHECK_FALSE(FileLock(path, "is at work").was_left());
}

TEST_CASE("of many threads one at a time has the lock") {
  const TemporaryFolder folder;
  const std::string path = folder.file("lock");
  std::atomic<int> inside = 0, overlaps = 0, turns = 0, wrong_words = 0, unseen = 0;
  std::atomic<bool> done = false;
  std::thread watcher([&] {
    while (!done) FileLock::is_held(path);
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < kContenders; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < kTurns; ++turn) {
        const bool taken = take_turn(path, [&] {
          if (++inside != 1) ++overlaps;
          if (!FileLock::is_held(path) || slurp(path) != on_this_host(::getpid())) ++unseen;
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
          --inside;
          ++turns;
        });
        if (!taken) ++wrong_words;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  done = true;
  watcher.join();
  CHECK(overlaps == 0);
  CHECK(turns == kContenders * kTurns);
  CHECK(wrong_words == 0);
  CHECK(unseen == 0);
  CHECK_FALSE(FileLock::is_held(path));
}

TEST_CASE("a lock that is held refuses every thread that asks, and goes on to one of them when it is free") {
  const TemporaryFolder folder;
  const std::string path = folder.file("lock");
  std::atomic<int> refused = 0, taken = 0, too_early = 0;
  std::atomic<bool> free = false;
  std::vector<std::thread> threads;
  {
    const FileLock held(path, "is at work");
    for (int i = 0; i < kContenders; ++i) {
      threads.emplace_back([&] {
        if (contains(message_of<UsageError>([&] { FileLock(path, "is at work"); }), " is at work")) ++refused;
        take_turn(path, [&] {
          if (!free) ++too_early;
          ++taken;
        });
      });
    }
    while (refused < kContenders) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    free = true;
  }
  for (auto& thread : threads) thread.join();
  CHECK(taken == kContenders);
  CHECK(too_early == 0);
}

TEST_CASE("of many processes one at a time has the lock") {
  const bool remove = GENERATE(false, true);  // the file, at the end of each turn, while others open it
  CAPTURE(remove);
  const TemporaryFolder folder;
  const std::string path = folder.file("lock"), inside = folder.file("inside");
  std::vector<pid_t> children;
  for (int i = 0; i < kContenders; ++i) {
    children.push_back(start_child([&] {
      int overlaps = 0;
      for (int turn = 0; turn < kTurns; ++turn) {
        const auto alone = [&] {
          if (::mkdir(inside.c_str(), 0700) != 0 || slurp(path) != on_this_host(::getpid())) ++overlaps;
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
          ::rmdir(inside.c_str());
        };
        const bool taken = take_turn(path, alone, remove);
        if (!taken) return 1;
      }
      return overlaps == 0 ? 0 : 2;
    }));
  }
  for (const pid_t child : children) CHECK(wait_for(child) == 0);
  CHECK(std::filesystem::exists(path) != remove);
}

TEST_CASE("a lock whose file is removed or replaced is no longer in place, and removes nothing") {
  const TemporaryFolder folder;
  const std::string path = folder.file("lock");
  {
    FileLock first(path, "is at work");
    first.remove_at_end();
    CHECK(first.in_place());
    std::filesystem::remove(path);
    CHECK_FALSE(first.in_place());
    {
      FileLock second(path, "is at work");
      CHECK(second.in_place());
      CHECK_FALSE(first.in_place());
    }
  }
  CHECK(std::filesystem::exists(path));
  {
    FileLock third(path, "is at work");
    third.remove_at_end();
  }
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("who waits for a lock whose file goes away takes the one that is there then") {
  const TemporaryFolder folder;
  const std::string path = folder.file("lock");
  for (const bool replaced : {false, true}) {
    auto held = std::make_unique<FileLock>(path, "is at work");
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      if (replaced) {
        spill(path + ".new", "");
        std::filesystem::rename(path + ".new", path);
      } else {
        std::filesystem::remove(path);
      }
    });
    std::unique_ptr<FileLock> waiting;
    CHECK_NOTHROW(waiting = std::make_unique<FileLock>(path, "is at work"));
    other.join();
    REQUIRE(waiting);
    CHECK(waiting->in_place());
    CHECK(slurp(path) == on_this_host(::getpid()));
  }
}

TEST_CASE("a process that is killed leaves its name and no lock") {
  const TemporaryFolder folder;
  const std::string path = folder.file("lock");
  const pid_t child = start_child_until_ready([&](const auto& ready) -> int {
    const FileLock held(path, "is at work");
    ready();
    while (true) ::pause();
  });
  CHECK(contains(message_of<UsageError>([&] { FileLock(path, "is at work"); }),
                 "process " + std::to_string(child) + " on "));
  ::kill(child, SIGKILL);
  CHECK(wait_for(child) == 128 + SIGKILL);
  CHECK(slurp(path) == on_this_host(child));
  CHECK_FALSE(FileLock::is_held(path));
  const FileLock held(path, "is at work");
  CHECK(held.was_left());
  CHECK(slurp(path) == on_this_host(::getpid()));
}

TEST_CASE("where the file system has no locks, the holder's name counts") {
  const TemporaryFolder folder;
  const std::string path = folder.file("lock");
  const pid_t gone = start_child([] { return 0; });
  REQUIRE(wait_for(gone) == 0);
  const std::string living = on_this_host(::getpid());
  const auto refused_for = [&](const std::string& holder) {
    spill(path, holder);
    const std::string message = message_of<UsageError>([&] { FileLock(path, "is at work"); });
    return contains(message, "process " + holder.substr(0, holder.find(' '))) &&
           message.ends_with("; if it is gone, remove " + path) && slurp(path) == holder &&
           FileLock::is_held(path);
  };
  const auto taken_from = [&](const std::string& holder) {
    spill(path, holder);
    if (FileLock::is_held(path)) return false;
    {
      const FileLock held(path, "is at work");
      if (slurp(path) != on_this_host(::getpid())) return false;
    }
    return slurp(path).empty();
  };
  const int status = without_flock({
      [&] { return taken_from(""); },
      [&] { return refused_for(living); },
      [&] { return refused_for("1 another-host\n"); },
      [&] { return taken_from(on_this_host(gone)); },
      [&] { return taken_from("no process\n"); },
  });
  if (status == kNoFilter) {
    WARN("system calls cannot be filtered here, so a file system without locks was not tried");
    return;
  }
  CHECK(status == 0);
}

TEST_CASE("a lock that cannot name its holder for lack of room leaves no file of its own") {
  const TemporaryFolder folder;
  const std::string made = folder.file("made"), found = folder.file("found");
  spill(found, "");
  const int status = status_of_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit no_room{0, 0};
    if (::setrlimit(RLIMIT_FSIZE, &no_room) != 0) return 1;
    for (const auto& path : {made, found}) {
      if (!message_of<RuntimeError>([&] {
             FileLock(path, "is at work");
           }).starts_with("cannot write " + path))
        return 2;
    }
    return 0;
  });
  CHECK(status == 0);
  CHECK(names_in(folder.path()) == std::set<std::string>{"found"});
}

TEST_CASE("a lock file that is a link or a pipe is refused, and what it leads to is left alone") {
  const TemporaryFolder folder;
  const std::string link = folder.file("link"), pipe = folder.file("pipe"), outside = folder.file("outside");
  spill(outside, "kept");
  std::filesystem::create_symlink(outside, link);
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  for (const auto& path : {link, pipe}) {
    CHECK(contains(message_of<RuntimeError>([&] { FileLock(path, "is at work"); }), path));
    CHECK_FALSE(FileLock::is_held(path));
  }
  CHECK(slurp(outside) == "kept");
}

}  // namespace hax::test
