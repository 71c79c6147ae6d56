// Files that become visible only when whole: a temporary file beside the target, written, fsynced,
// renamed, and the folder fsynced.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace hax {

// A file under construction. commit() publishes it; destruction without commit() removes it.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);  // throws RuntimeError naming path and errno's text
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
};

void write_file(const std::string& path, std::string_view text);  // through AtomicFile
std::string read_file(const std::string& path);                   // throws DataError
void make_directories(const std::string& path);                   // throws RuntimeError
void remove_stale_temporaries(const std::string& folder);         // what a killed AtomicFile left

// XXH3-128 of bytes, as 32 hexadecimal digits. Not cryptographic: it finds accidents, not forgeries.
std::string checksum(std::span<const std::byte> bytes);

// The same, fed piece by piece.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  void update(std::span<const std::byte> bytes);
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

template <class T>
std::span<const std::byte> as_bytes(const T& container) {
  return std::as_bytes(std::span(container.data(), container.size()));
}

}  // namespace hax
