#include "lib/convert/weight_file.h"

#include <cstring>
#include <sstream>

#include "lib/base/error.h"
#include "lib/base/safetensors_header.h"

namespace hax {
namespace {

constexpr std::string_view kEmbedding = "embeddings.weight", kOldEmbedding = "embedding.weight";
constexpr std::string_view kHead = "lm_head.weight";

// The last part of a name is `part`: "backbone.embeddings.weight".
bool is_named(std::string_view name, std::string_view part) {
  return name.ends_with(part) && (name.size() == part.size() || name[name.size() - part.size() - 1] == '.');
}

std::vector<std::string> embeddings_of(const Safetensors& file) {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : file.tensors()) {
    if (is_named(tensor.name, kEmbedding) || is_named(tensor.name, kOldEmbedding))
      names.push_back(tensor.name);
  }
  return names;
}

at::ScalarType scalar_type(const TensorInfo& tensor, const std::string& path) {
  if (tensor.dtype == Dtype::f32) return at::kFloat;
  if (tensor.dtype == Dtype::f16) return at::kHalf;
  if (tensor.dtype == Dtype::bf16) return at::kBFloat16;
  throw DataError(path + ": tensor " + safetensors::in_quotes(tensor.name) + " is of dtype " +
                  std::string(dtype_name(tensor.dtype)) + "; weights are F32, F16 or BF16");
}

}  // namespace

bool WeightFile::recognises(const Safetensors& file) { return !embeddings_of(file).empty(); }

WeightFile::WeightFile(const Safetensors& file) : file_(file) {
  const auto embeddings = embeddings_of(file);
  if (embeddings.size() != 1) {
    throw DataError(
        path() + ": holds " + std::to_string(embeddings.size()) +
        " embeddings (embeddings.weight, with or without a prefix); the weights of one model have one");
  }
  const std::string& embedding = embeddings.front();
  const auto part = is_named(embedding, kEmbedding) ? kEmbedding : kOldEmbedding;
  prefix_ = embedding.substr(0, embedding.size() - part.size());
  for (const TensorInfo& tensor : file.tensors()) {
    const std::string_view name = tensor.name;
    if (name == kHead || (name.starts_with(prefix_) && name.substr(prefix_.size()) == kHead)) {
      has_head_ = true;
      check_head(tensor.name, embedding);
    } else if (!name.starts_with(prefix_)) {
      throw DataError(path() + ": tensor " + safetensors::in_quotes(name) +
                      " has no place in the model, whose names begin with '" + prefix_ + "' as in " +
                      embedding);
    } else {
      names_.emplace(name == embedding ? kEmbedding : name.substr(prefix_.size()), name);
    }
  }
}

void WeightFile::check_head(const std::string& head, const std::string& embedding) const {
  if (at::equal(read(head), read(embedding))) return;
  throw DataError(path() + ": " + head + " differs from " + embedding +
                  ": an output matrix of its own has no place here, models of hax use the embedding");
}

const std::vector<int64_t>& WeightFile::shape(const std::string& name) const {
  const auto found = names_.find(name);
  if (found == names_.end()) {
    throw DataError(path() + ": tensor " + safetensors::in_quotes(prefix_ + name) + " is missing");
  }
  return file_.info(found->second).shape;
}

at::Tensor WeightFile::read(const std::string& name_in_file) const {
  const TensorInfo& info = file_.info(name_in_file);
  at::Tensor raw = at::empty(info.shape, scalar_type(info, path()));
  const auto bytes = file_.bytes(name_in_file);
  if (!bytes.empty()) std::memcpy(raw.data_ptr(), bytes.data(), bytes.size());
  return raw.to(at::kFloat);
}

at::Tensor WeightFile::tensor(const std::string& name) const {
  shape(name);  // throws where it is missing
  return read(names_.at(name));
}

void WeightFile::fill(const ParameterSet& parameters) const {
  std::ostringstream faults;
  for (const auto& p : parameters.all()) {
    const auto found = names_.find(p->name);
    if (found == names_.end()) {
      faults << "\n  " << prefix_ << p->name << " is missing: " << at::IntArrayRef(p->shape) << " is wanted";
    } else if (const auto& info = file_.info(found->second); info.shape != p->shape) {
      faults << "\n  " << info.name << " has shape " << at::IntArrayRef(info.shape) << ", wanted is "
             << at::IntArrayRef(p->shape);
    } else {
      scalar_type(info, path());  // throws for integers
    }
  }
  for (const auto& [name, in_file] : names_) {
    if (parameters.find(name) == nullptr) faults << "\n  " << in_file << " has no place in the model";
  }
  if (!faults.str().empty())
    throw DataError(path() + ": does not hold the weights of this model:" + faults.str());
  const at::NoGradGuard no_grad;
  for (const auto& p : parameters.all()) p->value.copy_(read(names_.at(p->name)));
}

void write_weights(const std::string& path, const std::vector<const Parameter*>& parameters,
                   const std::string& prefix, bool head) {
  std::vector<at::Tensor> held;
  std::vector<TensorToWrite> list;
  const auto add = [&](const std::string& name, const at::Tensor& value) {
    held.push_back(value.detach().to(at::kCPU, at::kFloat).contiguous());
    const at::Tensor& host = held.back();
    list.push_back({name,
                    Dtype::f32,
                    host.sizes().vec(),
                    {static_cast<const std::byte*>(host.data_ptr()), static_cast<size_t>(host.nbytes())}});
  };
  for (const Parameter* p : parameters) add(prefix + p->name, p->value);
  for (const Parameter* p : parameters) {
    if (head && p->name == kEmbedding) add(std::string(kHead), p->value);
  }
  // Readers in Python ask for the framework that the file is meant for.
  write_safetensors(path, list, {{"format", "pt"}});
}

}  // namespace hax
