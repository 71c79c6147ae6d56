// What happens to a process of its own: made by fork(), so call it while no other thread runs.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <stdexcept>

namespace hax::test {

// Starts a child that ends with the status that `body` returns, or 255 when it throws. One that hangs is
// ended by SIGALRM. Catch's own macros are of no use in it.
template <class F>
pid_t start_child(F&& body) {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("cannot fork");
  if (child > 0) return child;
  ::alarm(60);
  int status = 255;
  try {
    status = body();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
  }
  ::_exit(status);
}

// Exit status, or 128 + the signal that ended the child.
inline int wait_for(pid_t child) {
  int raw = 0;
  if (::waitpid(child, &raw, 0) != child) throw std::runtime_error("cannot wait for the child");
  return WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
}

template <class F>
int status_of_child(F&& body) {
  return wait_for(start_child(body));
}

}  // namespace hax::test
