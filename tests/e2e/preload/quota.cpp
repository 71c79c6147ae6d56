// Calls of the C library that fail as on a disk whose quota is used up: those on regular files that are
// written, but for the standard streams, while the file that HAX_TEST_QUOTA_FILE names is there.
// HAX_TEST_QUOTA_CALL says where it shows: "write" (and fallocate), as on a local disk, or "fsync" or
// "close", as on NFS, which takes what is written first and sends it later.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace {

template <class Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

bool used_up(const char* call, int fd) {
  const char* const where = std::getenv("HAX_TEST_QUOTA_CALL");
  const char* const file = std::getenv("HAX_TEST_QUOTA_FILE");
  if (where == nullptr || file == nullptr || std::strcmp(where, call) != 0) return false;
  const int before = errno;
  struct stat status {};
  const int mode = ::fcntl(fd, F_GETFL);
  // A file may be synced through a descriptor that reads.
  const bool writes = mode >= 0 && ((mode & O_ACCMODE) != O_RDONLY || std::strcmp(call, "fsync") == 0);
  const bool fails = fd > STDERR_FILENO && writes && ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
                     ::access(file, F_OK) == 0;
  errno = fails ? EDQUOT : before;
  return fails;
}

}  // namespace

extern "C" {

ssize_t write(int fd, const void* bytes, size_t count) {
  static auto* const next = real<ssize_t(int, const void*, size_t)>("write");
  return used_up("write", fd) ? -1 : next(fd, bytes, count);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
  static auto* const next = real<int(int, int, off_t, off_t)>("fallocate");
  return used_up("write", fd) ? -1 : next(fd, mode, offset, length);
}

int fsync(int fd) {
  static auto* const next = real<int(int)>("fsync");
  return used_up("fsync", fd) ? -1 : next(fd);
}

int close(int fd) {
  static auto* const next = real<int(int)>("close");
  const bool fails = used_up("close", fd);
  const int status = next(fd);  // the descriptor is gone all the same
  if (!fails) return status;
  errno = EDQUOT;
  return -1;
}

}  // extern "C"
