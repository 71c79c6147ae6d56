// A safetensors file as a whole: opened, and every tensor of it read in its type.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/safetensors.h"
#include "tests/fuzz/memory_file.h"

namespace {

// Reads the elements; a BOOL that is neither 0 nor 1 may be refused.
void read(const hax::Safetensors& file, const hax::TensorInfo& tensor) {
  using hax::Dtype;
  switch (tensor.dtype) {
    case Dtype::f64:
      file.values<double>(tensor.name);
      break;
    case Dtype::f32:
      file.values<float>(tensor.name);
      break;
    case Dtype::i64:
      file.values<int64_t>(tensor.name);
      break;
    case Dtype::u8:
      file.values<uint8_t>(tensor.name);
      break;
    case Dtype::boolean:
      try {
        file.values<bool>(tensor.name);
      } catch (const hax::DataError&) {
      }
      break;
    default:
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hax;
  static fuzz::MemoryFile memory;
  memory.set(fuzz::text_of(data, size));
  const std::string path = memory.path();
  try {
    const Safetensors file = Safetensors::open(path);
    size_t total = 0;
    unsigned sum = 0;
    for (const TensorInfo& tensor : file.tensors()) {
      const auto bytes = file.bytes(tensor.name);
      fuzz::demand(bytes.size() == static_cast<size_t>(tensor.numel()) * dtype_size(tensor.dtype),
                   "a tensor has the bytes of its shape");
      for (const std::byte byte : bytes) sum += std::to_integer<unsigned>(byte);
      total += bytes.size();
      read(file, tensor);
    }
    fuzz::demand(total <= size, "tensors lie inside the file");
    volatile unsigned kept = sum;
    (void)kept;
    try {
      file.info("no such tensor");
    } catch (const DataError&) {
    }
  } catch (const DataError& error) {
    fuzz::demand(std::string_view(error.what()).find(path) != std::string_view::npos,
                 "a refusal names the file");
  }
  return 0;
}
