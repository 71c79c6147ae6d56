// Reading and writing of safetensors files (8-byte header length, JSON header, raw little-endian data).
//
// The reader refuses every malformed file with a DataError that names the file and the fault; it never
// reads outside the mapping, and its memory is bounded by the file's size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hax {

enum class Dtype { f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean, f8_e4m3, f8_e5m2 };

size_t dtype_size(Dtype dtype);            // bytes an element
std::string_view dtype_name(Dtype dtype);  // "F32", "BF16", ... as in the format

struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> shape;
  size_t begin = 0;  // byte range inside the data section
  size_t end = 0;
  int64_t numel() const;
};

// A file, mapped read-only. Tensors keep the order of their data in the file.
class Safetensors {
 public:
  static Safetensors open(const std::string& path);  // throws DataError

  const std::string& path() const;
  const std::vector<TensorInfo>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;
  bool contains(std::string_view name) const;
  const TensorInfo& info(std::string_view name) const;        // throws DataError, naming near names
  std::span<const std::byte> bytes(std::string_view name) const;  // not necessarily aligned
  // The tensor's elements copied out; throws DataError when the dtype is another one than T's.
  template <class T>
  std::vector<T> values(std::string_view name) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

struct TensorToWrite {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // borrowed until the writer returns
};

// Writes the file atomically and durably (lib/base/files.h): data aligned to 8 bytes, tensors in the
// given order, the same input gives the same bytes. Throws RuntimeError when the disk fails.
void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace hax
