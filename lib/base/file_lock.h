// A lock file: one holder at a time, of all threads and processes that ask for the same path.
#pragma once

#include <string>

namespace hax {

// Holds the lock until the end of its life; meanwhile the file names the process and host. The kernel lets go
// of a dead process's lock. Where the file system has no locks, the name counts: a process of this host that
// is gone is passed over, and so is this process itself, whose number an earlier holder may have had.
// A file that is removed or replaced while one waits for it is let go, and the one of that name is locked.
class FileLock {
 public:
  // Makes the file where there is none. Throws UsageError "PATH: HOLDER `busy`" while another one has the
  // lock, with the advice to remove the file where only a name speaks for the holder; RuntimeError where the
  // file cannot be written, or is a link, a folder, a device or a pipe.
  FileLock(const std::string& path, const std::string& busy);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  // Whether the path still leads to the file that is locked. Where it does not, the file, or a folder above
  // it, was removed or replaced, and somebody else may hold the lock of that name.
  bool in_place() const;
  // Whether the holder before was killed: it left its name, or the file some other text.
  bool was_left() const { return was_left_; }
  // Removes the file at the end of the lock's life, before the lock is let go, if it is still in place.
  void remove_at_end() { remove_ = true; }

  // Whether anyone holds the lock; false where there is no such file.
  static bool is_held(const std::string& path);

 private:
  std::string path_;
  int fd_ = -1;
  bool was_left_ = false;
  bool remove_ = false;
};

}  // namespace hax
