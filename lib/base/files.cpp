// Atomic and durable files on POSIX calls, since std::ofstream can neither fsync nor say why it failed.
#include "lib/base/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include "lib/base/error.h"

namespace hax {
namespace {

constexpr std::string_view temporary_prefix = ".hax-";
constexpr std::string_view temporary_suffix = ".tmp";
constexpr size_t temporary_digits = 32;

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void fail(const std::string& what, const std::string& path, int error) {
  throw RuntimeError("cannot " + what + " " + path + ": " + reason(error));
}

// The folder that holds `path`, in a form that open() takes.
std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// 128 bits of the system's entropy: two writers never meet, and nobody can lay a file in the way.
std::string temporary_name() {
  unsigned char bytes[temporary_digits / 2];
  for (size_t filled = 0; filled < sizeof bytes;) {
    const ssize_t got = getrandom(bytes + filled, sizeof bytes - filled, 0);
    if (got < 0 && errno != EINTR) throw RuntimeError("cannot get random bytes: " + reason(errno));
    if (got > 0) filled += static_cast<size_t>(got);
  }
  std::string name(temporary_prefix);
  for (const unsigned char byte : bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    name += digits[byte >> 4];
    name += digits[byte & 15];
  }
  return name.append(temporary_suffix);
}

bool is_temporary_name(std::string_view name) {
  return name.size() == temporary_prefix.size() + temporary_digits + temporary_suffix.size() &&
         name.starts_with(temporary_prefix) && name.ends_with(temporary_suffix) &&
         name.substr(temporary_prefix.size(), temporary_digits).find_first_not_of("0123456789abcdef") ==
             std::string_view::npos;
}

int open_retrying(const std::string& path, int flags, mode_t mode = 0) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

int fsync_retrying(int fd) {
  int status;
  do {
    status = ::fsync(fd);
  } while (status != 0 && errno == EINTR);
  return status;
}

// Makes renames and new entries of a folder durable. File systems that cannot fsync a folder say EINVAL.
void sync_folder(const std::string& folder) {
  const int fd = open_retrying(folder, O_RDONLY | O_DIRECTORY);
  if (fd < 0) fail("open the folder", folder, errno);
  const int error = fsync_retrying(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (error != 0 && error != EINVAL) fail("flush the folder", folder, error);
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
  if (path.empty() || path.back() == '/') {
    throw RuntimeError("cannot write '" + path + "': it names no file");
  }
  const std::string fault = output_fault(path);
  if (!fault.empty()) throw RuntimeError("cannot write " + path + ": " + fault);
  temporary_ = (std::filesystem::path(path).parent_path() / temporary_name()).string();
  fd_ = open_retrying(temporary_, O_WRONLY | O_CREAT | O_EXCL, 0644);
  if (fd_ < 0) fail("create", path_, errno);
  // A file system without locks leaves the file unlocked, and there remove_stale_temporaries removes nothing.
  ::flock(fd_, LOCK_EX | LOCK_NB);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (fd_ < 0) throw std::invalid_argument("AtomicFile::write after commit: " + path_);
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      fail("write", path_, errno);
    }
    if (written == 0) fail("write", path_, ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::write(std::string_view text) { write(as_bytes(text)); }

void AtomicFile::commit() {
  if (fd_ < 0) throw std::invalid_argument("AtomicFile::commit twice: " + path_);
  if (fsync_retrying(fd_) != 0) fail("flush", path_, errno);
  const int fd = std::exchange(fd_, -1);
  // Network file systems report a full disk here; after EINTR the descriptor is gone and the data is safe.
  if (::close(fd) != 0 && errno != EINTR) fail("close", path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("put in place", path_, errno);
  temporary_.clear();
  sync_folder(folder_of(path_));
}

void write_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_file(const std::string& path, uint64_t max_bytes) {
  const auto refuse = [&](const std::string& why) { throw DataError("cannot read " + path + ": " + why); };
  // A pipe that nobody writes to would block the open.
  const int fd = open_retrying(path, O_RDONLY | O_NONBLOCK);
  if (fd < 0) refuse(reason(errno));
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{fd};
  struct stat status {};
  if (::fstat(fd, &status) != 0) refuse(reason(errno));
  if (S_ISDIR(status.st_mode)) refuse("it is a folder; name a file in it");
  if (!S_ISREG(status.st_mode)) refuse("it is not a regular file");
  const auto refuse_size = [&](uint64_t size) {
    refuse("it has " + std::to_string(size) + " bytes or more, and such a file at most " +
           std::to_string(max_bytes) + "; is it another kind of file?");
  };
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > max_bytes) refuse_size(size);
  std::string text;
  text.reserve(size);
  std::vector<char> buffer(1 << 16);
  // To the end, wherever that is by now: some files of the system have no size.
  while (true) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(reason(errno));
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
    if (text.size() > max_bytes) refuse_size(text.size());
  }
}

void sync_file(const std::string& path) {
  const int fd = open_retrying(path, O_RDONLY);
  if (fd < 0) fail("open", path, errno);
  const int error = fsync_retrying(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (error != 0) fail("flush", path, error);
  sync_folder(folder_of(path));
}

void require_room(const std::string& folder, int64_t bytes, int64_t files) {
  std::vector<std::string> taken;
  int error = 0;
  bool reserved = true;
  for (int64_t i = 0; i < files && error == 0 && reserved; ++i) {
    taken.push_back((std::filesystem::path(folder) / temporary_name()).string());
    const int fd = open_retrying(taken.back(), O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0) {
      error = errno;
      taken.pop_back();
      break;
    }
    do {
      error = bytes <= 0 || ::fallocate(fd, 0, 0, bytes) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error == EOPNOTSUPP || error == ENOSYS) {
      reserved = false;
      struct statvfs free {};
      const bool known = ::fstatvfs(fd, &free) == 0;
      error = known && free.f_bavail * free.f_frsize < static_cast<uint64_t>(bytes * files) ? ENOSPC : 0;
    }
    ::close(fd);
  }
  for (const std::string& path : taken) ::unlink(path.c_str());
  if (error != 0) {
    fail("make room for " + std::to_string(files) + " x " + std::to_string(bytes) + " bytes in", folder,
         error);
  }
}

void make_directories(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (!parent.empty()) make_directories(parent.string());
  if (::mkdir(path.c_str(), 0777) == 0) {
    sync_folder(folder_of(path));
  } else if (const int error = errno; !std::filesystem::is_directory(path, ignored)) {
    fail("make the folder", path, error);
  }
}

std::string output_fault(const std::string& path) {
  if (path.empty()) return "the path is empty";
  struct stat info {};
  if (const std::string folder = folder_of(path); ::stat(folder.c_str(), &info) != 0 && errno == ENOENT)
    return "there is no folder " + folder + "; make it first, or name another";
  if (::lstat(path.c_str(), &info) != 0 || S_ISREG(info.st_mode)) return "";
  return S_ISDIR(info.st_mode)
             ? "it is a folder; name a file in it"
             : "it is no regular file, and would be replaced; name another, or redirect stdout";
}

void remove_stale_temporaries(const std::string& folder) {
  DIR* const stream = ::opendir(folder.c_str());
  if (stream == nullptr) {
    if (errno == ENOENT) return;
    fail("list the folder", folder, errno);
  }
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream)) {
    if (is_temporary_name(entry->d_name)) names.emplace_back(entry->d_name);
  }
  ::closedir(stream);

  for (const std::string& name : names) {
    const std::string path = (std::filesystem::path(folder) / name).string();
    // No link is followed, and no device or pipe that bears such a name blocks the open.
    const int fd = open_retrying(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
      if (errno == ENOENT || errno == ELOOP) continue;
      fail("open", path, errno);
    }
    struct stat status {};
    const bool stale =
        ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && ::flock(fd, LOCK_EX | LOCK_NB) == 0;
    const int error = stale && ::unlink(path.c_str()) != 0 ? errno : 0;
    ::close(fd);
    if (error != 0 && error != ENOENT) fail("remove", path, error);
  }
}

}  // namespace hax
