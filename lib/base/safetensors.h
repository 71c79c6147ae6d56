// Reading and writing of safetensors files (8-byte header length, JSON header, raw little-endian data).
//
// The reader refuses every malformed file with a DataError that names the file and the fault; it never
// reads outside the mapping, and its memory is bounded by the header's size. It is as strict as the
// official package, and stricter where the format's text is: a header begins with '{' and no name, field
// or metadata key appears twice. Unknown fields of a tensor are ignored, as there. Data may start at any
// byte. Not supported, and refused as such: dtypes other than those below, sizes of 2^63 and more.
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
  size_t begin = 0;  // byte range [begin, end) inside the data section
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
  const TensorInfo& info(std::string_view name) const;  // throws DataError, naming near names
  // Borrowed from the mapping: valid while a copy of this object lives; not necessarily aligned.
  std::span<const std::byte> bytes(std::string_view name) const;
  // The tensor's elements copied out, for T = double, float, [u]int{64,32,16,8}_t, bool. Throws DataError
  // when the dtype is another one than T's, or a bool is neither 0 nor 1.
  template <class T>
  std::vector<T> values(std::string_view name) const;

 private:
  struct State;
  explicit Safetensors(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

struct TensorToWrite {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // borrowed until the writer returns
};

// Writes the file atomically and durably (lib/base/files.h): data aligned to 8 bytes, tensors in the
// given order, the same input gives the same bytes. Throws RuntimeError when the disk fails, and
// std::invalid_argument when a name appears twice, is "__metadata__" or is not UTF-8, when bytes do not
// fit dtype and shape, or when the header would be longer than the format allows.
void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace hax
