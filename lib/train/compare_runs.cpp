#include "lib/train/compare_runs.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/safetensors.h"

namespace hax {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

bool is_compared(const std::string& name) {
  return name != "timing.jsonl" && name != "lock" && !name.starts_with("eval-") &&
         !name.ends_with(".damaged") && !name.ends_with(".corrupt") && !name.ends_with(".tmp");
}

std::set<std::string> names_in(const std::string& run) {
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    const std::string name = entry.path().lexically_relative(run).generic_string();
    if (entry.is_regular_file() && is_compared(name)) names.insert(name);
  }
  return names;
}

std::string in_hex(std::span<const std::byte> bytes) {
  std::string text = "0x";
  for (size_t i = bytes.size(); i-- > 0;) {
    for (const int shift : {4, 0}) text += "0123456789abcdef"[std::to_integer<int>(bytes[i]) >> shift & 15];
  }
  return text;
}

// The element of a little-endian tensor, as a number where it is fp32, and its bits.
std::string element(const Safetensors& file, const TensorInfo& tensor, size_t index) {
  const size_t size = dtype_size(tensor.dtype);
  std::ostringstream text;
  text.precision(9);
  if (tensor.dtype == Dtype::f32) text << file.values<float>(tensor.name)[index] << " = ";
  text << in_hex(file.bytes(tensor.name).subspan(index * size, size));
  return text.str();
}

std::string checkpoint_difference(const std::string& a, const std::string& b) {
  const auto left = Safetensors::open(a), right = Safetensors::open(b);
  if (left.tensors().size() != right.tensors().size()) {
    return std::to_string(left.tensors().size()) + " tensors against " +
           std::to_string(right.tensors().size());
  }
  std::string first;
  size_t different = 0;
  for (const TensorInfo& tensor : left.tensors()) {
    if (!right.contains(tensor.name)) return "tensor " + tensor.name + " is in one of them alone";
    const TensorInfo& other = right.info(tensor.name);
    if (tensor.shape != other.shape || tensor.dtype != other.dtype)
      return "tensor " + tensor.name + " has another shape or dtype";
    const auto x = left.bytes(tensor.name), y = right.bytes(tensor.name);
    if (std::equal(x.begin(), x.end(), y.begin())) continue;
    if (++different > 1) continue;
    const auto at = static_cast<size_t>(std::mismatch(x.begin(), x.end(), y.begin()).first - x.begin());
    const size_t index = at / dtype_size(tensor.dtype);
    first = tensor.name + ", element " + std::to_string(index) + ": " + element(left, tensor, index) +
            " against " + element(right, other, index);
  }
  if (different > 0)
    return std::to_string(different) + " of " + std::to_string(left.tensors().size()) +
           " tensors differ, first " + first;
  for (const auto& [key, value] : left.metadata()) {
    const auto found = right.metadata().find(key);
    if (found == right.metadata().end()) return "metadata '" + key + "' is in one of them alone";
    if (key != "checksum" && found->second != value)
      return "metadata '" + key + "': " + value + " against " + found->second;
  }
  return "the same tensors, written otherwise";
}

std::string text_difference(const std::string& a, const std::string& b) {
  std::istringstream left(a), right(b);
  std::string x, y;
  for (int64_t line = 1;; ++line) {
    const bool more = static_cast<bool>(std::getline(left, x)),
               other = static_cast<bool>(std::getline(right, y));
    if (!more && !other) return "the ends of the last line differ";
    if (more && other && x == y) continue;
    return "line " + std::to_string(line) + ": " + (more ? x : "(none)") + " against " +
           (other ? y : "(none)");
  }
}

// Nor the checksum, which is over them too.
std::string without_seconds(const std::string& text) {
  Json result = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (result.is_object()) {
    result.erase("seconds");
    result.erase("checksum");
  }
  return result.dump();
}

std::string difference_of(const std::string& name, const std::string& a, const std::string& b) {
  if (!fs::exists(a) || !fs::exists(b))
    return std::string("only the ") + (fs::exists(a) ? "first" : "second") + " run has it";
  std::string left = read_file(a), right = read_file(b);
  if (name == "result.json") {
    left = without_seconds(left);
    right = without_seconds(right);
  }
  if (left == right) return "";
  try {
    return name.ends_with(".safetensors") ? checkpoint_difference(a, b) : text_difference(left, right);
  } catch (const DataError& e) {
    return e.what();
  }
}

}  // namespace

std::vector<ComparedFile> compare_runs(const std::string& a, const std::string& b) {
  std::set<std::string> names = names_in(a);
  names.merge(names_in(b));
  std::vector<ComparedFile> files;
  for (const std::string& name : names) {
    const std::string left = a + "/" + name, right = b + "/" + name;
    files.push_back({name, fs::exists(left) ? static_cast<int64_t>(fs::file_size(left)) : 0,
                     difference_of(name, left, right)});
  }
  return files;
}

}  // namespace hax
