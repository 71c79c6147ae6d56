// The writer: metadata first, then the tensors in the given order, compact JSON, so that bytes depend on
// the input alone.
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "lib/base/files.h"
#include "lib/base/safetensors.h"
#include "lib/base/safetensors_header.h"

namespace hax {
namespace {

std::string json_string(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    throw std::invalid_argument("write_safetensors: " + safetensors::in_quotes(text) + " is not UTF-8");
  }
}

std::string header_text(const std::vector<TensorToWrite>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += json_string(std::string(safetensors::metadata_key)) + ":{";
    for (const auto& [key, value] : metadata) {
      if (text.back() != '{') text += ',';
      text += json_string(key) + ":" + json_string(value);
    }
    text += '}';
  }
  std::set<std::string_view> names{safetensors::metadata_key};
  uint64_t begin = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::string where = "write_safetensors: tensor " + safetensors::in_quotes(tensor.name);
    if (!names.insert(tensor.name).second) throw std::invalid_argument(where + ": the name is taken");
    const std::string shape = safetensors::shape_text(tensor.shape);
    if (safetensors::tensor_bytes(tensor.dtype, tensor.shape) != tensor.bytes.size()) {
      throw std::invalid_argument(where + ": " + std::to_string(tensor.bytes.size()) + " bytes for " +
                                  std::string(dtype_name(tensor.dtype)) + " " + shape);
    }
    if (text.back() != '{') text += ',';
    text += json_string(tensor.name) + ":{\"dtype\":\"" + std::string(dtype_name(tensor.dtype)) +
            "\",\"shape\":" + shape + ",\"data_offsets\":[" + std::to_string(begin) + "," +
            std::to_string(begin + tensor.bytes.size()) + "]}";
    begin += tensor.bytes.size();
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');  // the data begins at a multiple of 8
  if (text.size() > safetensors::max_header_bytes) {
    throw std::invalid_argument("write_safetensors: a header of " + std::to_string(text.size()) + " bytes");
  }
  return text;
}

}  // namespace

void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string header = header_text(tensors, metadata);
  const uint64_t length = header.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const TensorToWrite& tensor : tensors) file.write(tensor.bytes);
  file.commit();
}

}  // namespace hax
