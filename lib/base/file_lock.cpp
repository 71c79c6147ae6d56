#include "lib/base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstring>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/log.h"
#include "lib/base/open_output.h"

namespace hax {
namespace {

constexpr int kAttempts = 10;
constexpr int kMostReplacements = 1000;
constexpr auto kBetweenAttempts = std::chrono::milliseconds(20);

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return ::gethostname(name, sizeof name - 1) == 0 && name[0] != '\0' ? name : "?";
}

// What the lock's holder wrote: its process and host. No value where it wrote none.
struct Holder {
  pid_t process = 0;
  std::string host;
};
std::optional<Holder> holder_in(const std::string& path) {
  std::istringstream text;
  try {
    text.str(read_file(path));
  } catch (const DataError&) {  // removed a moment ago
    return std::nullopt;
  }
  Holder holder;
  if (!(text >> holder.process >> holder.host) || holder.process <= 0) return std::nullopt;
  return holder;
}

std::string holder_text(const std::string& path) {
  const auto holder = holder_in(path);
  return holder ? "process " + std::to_string(holder->process) + " on " + holder->host : "another process";
}

// False where nobody stands in the lock, or a process of this host that is gone.
bool holder_may_live(const std::string& path) {
  const auto holder = holder_in(path);
  if (!holder || holder->process == ::getpid()) return false;
  return holder->host != host_name() || ::kill(holder->process, 0) == 0 || errno == EPERM;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

bool leads_to(const std::string& path, int fd) {
  struct stat named {};
  struct stat open {};
  return ::lstat(path.c_str(), &named) == 0 && ::fstat(fd, &open) == 0 && named.st_dev == open.st_dev &&
         named.st_ino == open.st_ino;
}

// The file at `path`, locked; it may have lost its name meanwhile.
int locked_file(const std::string& path, const std::string& busy) {
  Descriptor file(open_output(path, O_RDWR | O_CREAT));
  const auto refuse = [&](const std::string& more) {
    throw UsageError(path + ": " + holder_text(path) + " " + busy + more);
  };
  // is_held() of another one has it for a moment.
  for (int attempt = 1; ::flock(file.get(), LOCK_EX | LOCK_NB) != 0; ++attempt) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) {
      if (holder_may_live(path)) refuse("; if it is gone, remove " + path);
      break;
    }
    if (!leads_to(path, file.get())) break;
    if (attempt == kAttempts) refuse("");
    std::this_thread::sleep_for(kBetweenAttempts);
  }
  return file.release();
}

}  // namespace

FileLock::FileLock(const std::string& path, const std::string& busy) : path_(path) {
  struct stat before {};
  const bool was_there = ::lstat(path.c_str(), &before) == 0;
  Descriptor file(locked_file(path, busy));
  for (int attempt = 1; !leads_to(path, file.get()); ++attempt) {
    if (attempt == kMostReplacements)
      throw RuntimeError("cannot lock " + path + ": it is removed again and again");
    file = Descriptor(locked_file(path, busy));
  }
  struct stat status {};
  was_left_ = ::fstat(file.get(), &status) == 0 && status.st_size > 0;
  const std::string holder = std::to_string(::getpid()) + " " + host_name() + "\n";
  if (::ftruncate(file.get(), 0) != 0 || ::pwrite(file.get(), holder.data(), holder.size(), 0) < 0) {
    const std::string why = std::strerror(errno);
    if (!was_there && leads_to(path, file.get())) ::unlink(path.c_str());
    throw RuntimeError("cannot write " + path + ": " + why);
  }
  fd_ = file.release();
}

FileLock::~FileLock() {
  if (remove_ && in_place()) {
    // While the lock is held: afterwards the file of this name may be another holder's.
    if (::unlink(path_.c_str()) != 0) log::debug("the lock's file stays");
  }
  // A name that stays is passed over by the next holder.
  if (::ftruncate(fd_, 0) != 0) log::debug("the lock keeps its holder's name");
  ::close(fd_);
}

bool FileLock::in_place() const { return leads_to(path_, fd_); }

bool FileLock::is_held(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return false;
  const Descriptor file(fd);
  return ::flock(fd, LOCK_SH | LOCK_NB) != 0 && (errno == EWOULDBLOCK || holder_may_live(path));
}

}  // namespace hax
