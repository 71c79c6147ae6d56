// A lock file: one holder at a time, of all threads and processes that ask for the same path.
#pragma once

#include <string>

namespace hax {

// Holds the lock until the end of its life; meanwhile the file names the process and host. The kernel lets go
// of a dead process's lock. Where the file system has no locks, the name counts: a process of this host that
// is gone is passed over, and so is this process itself, whose number an earlier holder may have had.
class FileLock {
 public:
  // Makes the file where there is none. Throws UsageError "PATH: HOLDER `busy`" while another one has the
  // lock, with the advice to remove the file where only a name speaks for the holder; RuntimeError where the
  // file cannot be written, or is a link, a folder, a device or a pipe.
  FileLock(const std::string& path, const std::string& busy);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  // Whether anyone holds the lock; false where there is no such file.
  static bool is_held(const std::string& path);

  // What the path leads to by now: folders are moved, removed and made again. Beside any file but its own the
  // holder has no right to write.
  enum class Found { own, nothing, another };
  Found found() const;

 private:
  const std::string path_;
  int fd_ = -1;
};

}  // namespace hax
