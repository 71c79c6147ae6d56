#include "lib/base/open_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lib/base/error.h"

namespace hax {
namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw RuntimeError("cannot open " + path + ": " + why);
}

const char* const kNoRegularFile =
    "it is no regular file (a symbolic link, a folder, a device or a pipe); move it away";

}  // namespace

int open_output(const std::string& path, int flags) {
  // Opening a device can have effects of its own; what is laid in the way after this look is refused below.
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) refuse(path, kNoRegularFile);
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) refuse(path, std::strerror(errno));
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    refuse(path, kNoRegularFile);
  }
  return fd;
}

}  // namespace hax
