// The reader: a read-only mapping of the file and an index of its header.
#include "lib/base/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <type_traits>
#include <utility>

#include "lib/base/error.h"
#include "lib/base/nearest.h"
#include "lib/base/safetensors_header.h"

namespace hax {
namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors data is little-endian and is not swapped");

constexpr size_t length_bytes = 8;

class Mapping {
 public:
  explicit Mapping(const std::string& path) {
    const auto fail = [&](const std::string& reason) {
      throw DataError("cannot read " + path + ": " + reason);
    };
    const auto reason = [] { return std::generic_category().message(errno); };
    // A pipe that nobody writes to would block the open.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) fail(reason());
    struct Closer {
      int fd;
      ~Closer() { ::close(fd); }
    } closer{fd};
    struct stat status {};
    if (::fstat(fd, &status) != 0) fail(reason());
    if (!S_ISREG(status.st_mode)) fail("it is not a regular file");
    size_ = static_cast<size_t>(status.st_size);
    if (size_ == 0) return;  // mmap refuses length 0
    void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) fail(reason());
    data_ = static_cast<const char*>(address);
  }
  ~Mapping() {
    if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::string_view view() const { return {data_, size_}; }

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
};

// The header's text and what follows it.
std::pair<std::string_view, std::string_view> split(std::string_view file) {
  if (file.size() < length_bytes) {
    throw DataError("the file has " + std::to_string(file.size()) +
                    " bytes, fewer than the 8 of the header's length");
  }
  if (file.starts_with("PK\x03\x04"))
    throw DataError("the file is a zip archive (perhaps a PyTorch checkpoint)");
  uint64_t header_bytes;
  std::memcpy(&header_bytes, file.data(), length_bytes);
  file.remove_prefix(length_bytes);
  const std::string length = "the header's length " + std::to_string(header_bytes);
  if (header_bytes > safetensors::max_header_bytes) {
    throw DataError(length + " is over the format's limit of " +
                    std::to_string(safetensors::max_header_bytes));
  }
  if (header_bytes > file.size()) {
    throw DataError(length + " is more than the " + std::to_string(file.size()) + " bytes that follow it");
  }
  return {file.substr(0, header_bytes), file.substr(header_bytes)};
}

template <class T>
constexpr Dtype dtype_of() {
  if constexpr (std::is_same_v<T, double>) return Dtype::f64;
  if constexpr (std::is_same_v<T, float>) return Dtype::f32;
  if constexpr (std::is_same_v<T, int64_t>) return Dtype::i64;
  if constexpr (std::is_same_v<T, int32_t>) return Dtype::i32;
  if constexpr (std::is_same_v<T, int16_t>) return Dtype::i16;
  if constexpr (std::is_same_v<T, int8_t>) return Dtype::i8;
  if constexpr (std::is_same_v<T, uint64_t>) return Dtype::u64;
  if constexpr (std::is_same_v<T, uint32_t>) return Dtype::u32;
  if constexpr (std::is_same_v<T, uint16_t>) return Dtype::u16;
  if constexpr (std::is_same_v<T, uint8_t>) return Dtype::u8;
  if constexpr (std::is_same_v<T, bool>) return Dtype::boolean;
}

}  // namespace

int64_t TensorInfo::numel() const { return static_cast<int64_t>((end - begin) / dtype_size(dtype)); }

struct Safetensors::State {
  explicit State(const std::string& file_path) : path(file_path), mapping(file_path) {
    try {
      const auto [text, rest] = split(mapping.view());
      header = safetensors::parse_header(text, rest.size());
      data = std::as_bytes(std::span(rest.data(), rest.size()));
    } catch (const DataError& error) {
      throw DataError(path + " is not a valid safetensors file: " + error.what());
    }
    for (const TensorInfo& tensor : header.tensors) by_name.emplace(tensor.name, &tensor);
  }

  std::string path;
  Mapping mapping;
  std::span<const std::byte> data;
  safetensors::Header header;
  std::map<std::string_view, const TensorInfo*> by_name;  // into header.tensors
};

Safetensors::Safetensors(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Safetensors Safetensors::open(const std::string& path) {
  return Safetensors(std::make_shared<const State>(path));
}

const std::string& Safetensors::path() const { return state_->path; }
const std::vector<TensorInfo>& Safetensors::tensors() const { return state_->header.tensors; }
const std::map<std::string, std::string>& Safetensors::metadata() const { return state_->header.metadata; }
bool Safetensors::contains(std::string_view name) const { return state_->by_name.contains(name); }

const TensorInfo& Safetensors::info(std::string_view name) const {
  const auto found = state_->by_name.find(name);
  if (found != state_->by_name.end()) return *found->second;
  std::vector<std::string> names;
  for (const TensorInfo& tensor : tensors()) names.push_back(tensor.name);
  std::string message = path() + " holds no tensor " + safetensors::in_quotes(name);
  const std::vector<std::string> near = nearest_names(name, names, 3);
  for (size_t i = 0; i < near.size(); ++i)
    message += (i == 0 ? "; near: " : ", ") + safetensors::in_quotes(near[i]);
  throw DataError(message);
}

std::span<const std::byte> Safetensors::bytes(std::string_view name) const {
  const TensorInfo& tensor = info(name);
  return state_->data.subspan(tensor.begin, tensor.end - tensor.begin);
}

template <class T>
std::vector<T> Safetensors::values(std::string_view name) const {
  const TensorInfo& tensor = info(name);
  const std::span<const std::byte> raw = bytes(name);
  const auto where = [&] { return path() + ": tensor " + safetensors::in_quotes(name); };
  if (tensor.dtype != dtype_of<T>()) {
    throw DataError(where() + " is of dtype " + std::string(dtype_name(tensor.dtype)) + ", not " +
                    std::string(dtype_name(dtype_of<T>())));
  }
  std::vector<T> values(static_cast<size_t>(tensor.numel()));
  if constexpr (std::is_same_v<T, bool>) {
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] > std::byte{1}) {
        throw DataError(where() + " holds " + std::to_string(std::to_integer<int>(raw[i])) + " at element " +
                        std::to_string(i) + ": a BOOL is 0 or 1");
      }
      values[i] = raw[i] == std::byte{1};
    }
  } else if (!raw.empty()) {
    std::memcpy(values.data(), raw.data(), raw.size());
  }
  return values;
}

template std::vector<double> Safetensors::values(std::string_view) const;
template std::vector<float> Safetensors::values(std::string_view) const;
template std::vector<int64_t> Safetensors::values(std::string_view) const;
template std::vector<int32_t> Safetensors::values(std::string_view) const;
template std::vector<int16_t> Safetensors::values(std::string_view) const;
template std::vector<int8_t> Safetensors::values(std::string_view) const;
template std::vector<uint64_t> Safetensors::values(std::string_view) const;
template std::vector<uint32_t> Safetensors::values(std::string_view) const;
template std::vector<uint16_t> Safetensors::values(std::string_view) const;
template std::vector<uint8_t> Safetensors::values(std::string_view) const;
template std::vector<bool> Safetensors::values(std::string_view) const;

}  // namespace hax
