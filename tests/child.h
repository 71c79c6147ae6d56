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

// As start_child, and back only when the child, from `body`, has called the function that it gets.
template <class F>
pid_t start_child_until_ready(F&& body) {
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("cannot make a pipe");
  const pid_t child = start_child([&] {
    return body([&] {
      if (::write(ends[1], "x", 1) != 1) throw std::runtime_error("cannot say that the child is ready");
    });
  });
  ::close(ends[1]);
  char byte;
  const bool ready = ::read(ends[0], &byte, 1) == 1;
  ::close(ends[0]);
  if (!ready) throw std::runtime_error("the child ended before it was ready");
  return child;
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
