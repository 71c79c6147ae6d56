// Files that become visible only when whole: a temporary file beside the target, written, fsynced,
// renamed, and the folder fsynced. Also checksums of what was written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace hax {

// A file under construction, of mode 0644 & ~umask. commit() publishes it, in place of any file of that
// name; destruction without commit() removes it. Every failure of the system is a RuntimeError that
// names the path and errno's text.
//
// The temporary is `.hax-<32 hexadecimal digits>.tmp` in the target's folder, and it is locked (flock)
// for as long as it is being written, so that remove_stale_temporaries can tell it from a left-over.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);  // throws std::invalid_argument after commit()
  void write(std::string_view text);
  void commit();  // throws std::invalid_argument the second time

 private:
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
};

// Why a file at `path` cannot be written or must not be replaced (no such folder; a folder, a device, a pipe, a link,
// an empty path); empty where it may.
std::string output_fault(const std::string& path);
void write_file(const std::string& path, std::string_view text);  // through AtomicFile
// A regular file's bytes. Throws DataError for what is none, cannot be read or is larger than `max_bytes`.
std::string read_file(const std::string& path, uint64_t max_bytes = UINT64_MAX);

// Makes what a file holds, and its name, durable. Throws RuntimeError.
void sync_file(const std::string& path);

// Tries to take room for `files` files of `bytes` each in the folder, and gives it back. Throws RuntimeError
// that names the folder and the reason: no room, a quota, a limit on the size of files, no right to write, no
// such folder. Where the file system cannot reserve room it is asked how much is free.
void require_room(const std::string& folder, int64_t bytes, int64_t files = 1);

// Makes the folder and its missing parents, durably. Throws RuntimeError.
void make_directories(const std::string& path);

// Removes what killed AtomicFiles left in the folder itself (not below it); a file that some process
// is still writing stays. A folder that does not exist holds none. Throws RuntimeError.
void remove_stale_temporaries(const std::string& folder);

// XXH3-128 of bytes, as 32 hexadecimal digits. Not cryptographic: it finds accidents, not forgeries.
std::string checksum(std::span<const std::byte> bytes);

// The same, fed piece by piece.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  void update(std::span<const std::byte> bytes);
  std::string hex() const;  // of everything fed so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

template <class T>
std::span<const std::byte> as_bytes(const T& container) {
  return std::as_bytes(std::span(container.data(), container.size()));
}

}  // namespace hax
