// Runs killed at random moments. The trainings are children of a process of their own that never computes a
// gradient: threads do not survive fork(), and LibTorch refuses a backward pass in the child of a process
// that has autograd threads, as any other test case on a machine with a GPU leaves them.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <thread>

#include "tests/catch.h"
#include "tests/support.h"
#include "tests/train/toy_run.h"

namespace hax::test {
namespace {

#ifdef HAX_SANITIZED
constexpr int kKills = 10;  // each costs ten times as much
#else
constexpr int kKills = 250;
#endif

// The child that trains in `path`.
pid_t start_training(const std::string& path, const Config& config) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  int status = 1;
  try {
    status = run_toy(path, config).end == TrainEnd::finished ? 0 : 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
  }
  ::_exit(status);
}

// The status of waitpid().
int wait_for(pid_t child) {
  int raw = 0;
  REQUIRE(::waitpid(child, &raw, 0) == child);
  return raw;
}

bool is_success(int raw) { return WIFEXITED(raw) && WEXITSTATUS(raw) == 0; }

}  // namespace

TEST_CASE("the process whose children are killed", "[.][kills]") {
  Config config = toy_config();
  config.train.steps = 40;
  config.train.validate_every = 5;
  config.train.checkpoint_every = 2;
  config.train.log_every = 1;
  RandomStream random({20, Purpose::test, 0, 0, 0});
  int kills = 0, lives = 0;
  for (int64_t seed = 1; kills < kKills; ++seed) {
    config.train.seed = seed;
    const TemporaryFolder folder;
    const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
    const auto start = std::chrono::steady_clock::now();
    REQUIRE(is_success(wait_for(start_training(whole, config))));
    const auto length = std::chrono::steady_clock::now() - start;
    for (bool ended = false; !ended; ++lives) {
      const auto delay = length * random.below(800) / 1000;
      const pid_t child = start_training(path, config);
      REQUIRE(child > 0);
      std::this_thread::sleep_for(delay);
      ::kill(child, SIGKILL);
      const int raw = wait_for(child);
      ended = !WIFSIGNALED(raw);
      if (ended)
        REQUIRE(is_success(raw));
      else
        ++kills;
    }
    CAPTURE(seed, kills, lives);
    CHECK(differences(whole, path) == "");
  }
}

TEST_CASE("two hundred and fifty kills at random moments lose nothing") {
  std::string program = "/proc/self/exe", filter = "[kills]";
  char* const arguments[] = {program.data(), filter.data(), nullptr};
  pid_t process = 0;
  REQUIRE(::posix_spawn(&process, program.c_str(), nullptr, nullptr, arguments, environ) == 0);
  CHECK(is_success(wait_for(process)));
}

}  // namespace hax::test
