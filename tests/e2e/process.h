// A `hax` that runs beside the test, to be waited for and sent signals.
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace hax::test {

class Process {
 public:
  // stdout and stderr go to `output`; `prepare` runs in the child before the program.
  Process(const std::vector<std::string>& arguments, const std::string& output,
          const std::function<void()>& prepare = {}) {
    std::vector<std::string> words = {HAX_BINARY};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ < 0) throw std::runtime_error("cannot fork");
    if (pid_ > 0) return;
    const int fd = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(fd, STDOUT_FILENO);
    ::dup2(fd, STDERR_FILENO);
    ::close(fd);
    if (prepare) prepare();
    ::execv(HAX_BINARY, argv.data());
    ::_exit(127);
  }
  ~Process() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void send(int signal) const { ::kill(pid_, signal); }
  // Exit status, or 128 + the signal that ended it.
  int wait() {
    int raw = 0;
    if (::waitpid(pid_, &raw, 0) != pid_) throw std::runtime_error("cannot wait for the program");
    pid_ = 0;
    return WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
  }
  // Looks again and again, for a minute at most, until it says true. False when the time is up.
  static bool wait_until(const std::function<bool()>& reached) {
    for (int i = 0; i < 12000; ++i) {
      if (reached()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

 private:
  pid_t pid_ = -1;
};

}  // namespace hax::test
