// What is said on stderr, caught by another file in its place.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "tests/catch.h"
#include "tests/support.h"

namespace hax::test {

// Puts another file in the place of stderr until the end of the scope.
class InPlaceOfStderr {
 public:
  explicit InPlaceOfStderr(int fd) : saved_(dup(STDERR_FILENO)) { dup2(fd, STDERR_FILENO); }
  ~InPlaceOfStderr() {
    dup2(saved_, STDERR_FILENO);
    close(saved_);
  }

 private:
  int saved_;
};

// What talk() writes to stderr while that is a plain file.
template <class F>
std::string stderr_of(F&& talk) {
  const TemporaryFolder folder;
  const int fd = open(folder.file("stderr").c_str(), O_WRONLY | O_CREAT, 0600);
  REQUIRE(fd >= 0);
  {
    const InPlaceOfStderr redirected(fd);
    talk();
  }
  close(fd);
  return slurp(folder.file("stderr"));
}

}  // namespace hax::test
