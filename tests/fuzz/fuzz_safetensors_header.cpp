// A safetensors header by itself: one byte of data size, then JSON, so that no length has to be right.
#include "lib/base/error.h"
#include "lib/base/safetensors_header.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hax;
  fuzz::Bytes bytes(data, size);
  const uint64_t data_bytes = bytes.byte();
  try {
    const safetensors::Header header = safetensors::parse_header(bytes.rest(), data_bytes);
    uint64_t end = 0;
    for (const TensorInfo& tensor : header.tensors) {
      fuzz::demand(tensor.begin == end && tensor.end >= tensor.begin, "tensors tile the data");
      fuzz::demand(safetensors::tensor_bytes(tensor.dtype, tensor.shape) == tensor.end - tensor.begin,
                   "a tensor has the bytes of its shape");
      end = tensor.end;
    }
    fuzz::demand(end == data_bytes, "the data are covered");
  } catch (const DataError& error) {
    fuzz::demand(std::string_view(error.what()).size() < 2000, "a refusal is short");
  }
  return 0;
}
