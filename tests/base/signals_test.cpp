// Signals while several threads work. Each case is a child: what a process was told once it never forgets.
#include "lib/base/signals.h"

#include <fcntl.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>
#include <utility>
#include <vector>

#include "tests/catch.h"
#include "tests/child.h"

namespace hax::test {
namespace {

constexpr int kThreads = 4;
constexpr std::pair<int, int> kSignals[] = {{SIGINT, 130}, {SIGTERM, 143}, {SIGUSR1, 138}, {SIGHUP, 129}};

void pause_a_moment() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

enum class Way { to_process, to_a_worker, to_oneself, from_a_worker };

}  // namespace

TEST_CASE("a signal stops every thread that asks, whichever of them it reaches") {
  for (const auto& [signal, status] : kSignals) {
    for (const Way way : {Way::to_process, Way::to_a_worker, Way::to_oneself, Way::from_a_worker}) {
      CAPTURE(signal, static_cast<int>(way));
      CHECK(status_of_child([&, signal = signal, status = status] {
              std::signal(SIGHUP, SIG_DFL);
              catch_signals();
              if (stop_requested()) return 1;
              // A signal that meets a thread in its first call that blocks is lost by gcc 12's thread
              // sanitizer.
              pause_a_moment();
              std::atomic<int> asking = 0, stopped = 0;
              std::vector<std::thread> workers;
              for (int i = 0; i < kThreads; ++i) {
                workers.emplace_back([&, i] {
                  pause_a_moment();  // as above
                  ++asking;
                  while (asking < kThreads) pause_a_moment();
                  if (i == 0 && way == Way::from_a_worker) ::kill(::getpid(), signal);
                  while (!stop_requested()) pause_a_moment();
                  if (signal_exit_status() == status) ++stopped;
                });
              }
              while (asking < kThreads) pause_a_moment();
              if (way == Way::to_process) ::kill(::getpid(), signal);
              if (way == Way::to_a_worker) ::pthread_kill(workers.back().native_handle(), signal);
              if (way == Way::to_oneself) std::raise(signal);
              for (auto& worker : workers) worker.join();
              return stopped == kThreads && signal_exit_status() == status ? 0 : 2;
            }) == 0);
    }
  }
}

TEST_CASE("a second signal ends the program at once, whatever its threads do") {
  for (const auto& [signal, status] : kSignals) {
    CAPTURE(signal);
    CHECK(status_of_child([&, signal = signal] {
            std::signal(SIGHUP, SIG_DFL);
            catch_signals();
            std::raise(SIGTERM);
            if (signal_exit_status() != 143) return 1;
            std::thread([] {
              while (true) pause_a_moment();
            }).detach();
            std::raise(signal);
            return 0;
          }) == status);
  }
}

TEST_CASE("of two signals at the same moment one asks and the other ends") {
  for (int i = 0; i < 40; ++i) {
    const int status = status_of_child([] {
      catch_signals();
      std::atomic<int> ready = 0;
      const auto raise_together = [&](int signal) {
        ++ready;
        while (ready < 2) {
        }
        ::pthread_kill(::pthread_self(), signal);
      };
      std::thread other(raise_together, SIGINT);
      raise_together(SIGTERM);
      other.join();
      return 0;
    });
    REQUIRE((status == 130 || status == 143));
  }
}

TEST_CASE("a hang-up that is ignored from the start stays so") {
  CHECK(status_of_child([] {
          std::signal(SIGHUP, SIG_IGN);
          catch_signals();
          std::raise(SIGHUP);
          if (stop_requested()) return 1;
          std::raise(SIGTERM);
          return stop_requested() ? 0 : 2;
        }) == 0);
}

TEST_CASE("a broken pipe is an error of write(), not the end") {
  CHECK(status_of_child([] {
          int ends[2];
          if (::pipe(ends) != 0) return 1;
          ::close(ends[0]);
          ignore_write_signals();
          return ::write(ends[1], "x", 1) < 0 && errno == EPIPE ? 0 : 2;
        }) == 0);
}

TEST_CASE("closed standard streams are filled, so that no file gets their numbers") {
  CHECK(status_of_child([] {
          for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::close(fd);
          open_standard_streams();
          return ::open("/dev/null", O_RDONLY) > STDERR_FILENO && ::write(STDERR_FILENO, "x", 1) == 1 &&
                         ::write(STDOUT_FILENO, "x", 1) < 0
                     ? 0
                     : 1;
        }) == 0);
}

}  // namespace hax::test
