// The JSON header of a safetensors file: everything about the format that needs no file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/safetensors.h"

namespace hax::safetensors {

inline constexpr uint64_t max_header_bytes = 100'000'000;  // the format's limit
inline constexpr std::string_view metadata_key = "__metadata__";

struct Header {
  std::vector<TensorInfo> tensors;  // in the order of their data
  std::map<std::string, std::string> metadata;
};

// Reads a header and checks that its tensors tile a data section of `data_bytes` bytes exactly. Throws
// DataError that names the fault but not the file.
Header parse_header(std::string_view json, uint64_t data_bytes);

// Bytes of a tensor; nothing when a size is negative or a product overflows.
std::optional<uint64_t> tensor_bytes(Dtype dtype, const std::vector<int64_t>& shape);

// "[2,3]"
std::string shape_text(const std::vector<int64_t>& shape);

// A name in double quotes for a message: control characters escaped, the middle of a long one left out.
std::string in_quotes(std::string_view name);

}  // namespace hax::safetensors
