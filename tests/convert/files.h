// Weights on disk for the tests of `hax convert`: small models and safetensors files made by hand.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lib/base/safetensors.h"
#include "lib/convert/convert.h"
#include "lib/model/checkpoint.h"
#include "tests/ops/tensors.h"
#include "tests/support.h"

namespace hax::test {

using TensorMap = std::map<std::string, at::Tensor>;

inline Dtype dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return Dtype::f32;
    case at::kHalf:
      return Dtype::f16;
    case at::kBFloat16:
      return Dtype::bf16;
    case at::kDouble:
      return Dtype::f64;
    default:
      return Dtype::i64;
  }
}

inline void write_tensors(const std::string& path, const TensorMap& tensors,
                          const std::map<std::string, std::string>& metadata = {}) {
  std::vector<TensorToWrite> list;
  for (const auto& [name, t] : tensors) {
    list.push_back({name,
                    dtype_of(t),
                    t.sizes().vec(),
                    {static_cast<const std::byte*>(t.data_ptr()), static_cast<size_t>(t.nbytes())}});
  }
  write_safetensors(path, list, metadata);
}

inline TensorMap read_tensors(const std::string& path) {
  const auto file = Safetensors::open(path);
  TensorMap tensors;
  for (const auto& info : file.tensors()) tensors.emplace(info.name, load_tensor(file, info.name));
  return tensors;
}

// Every parameter moved off its initial value, so that no two tensors could be exchanged unseen.
inline LanguageModel moved_model(const ModelConfig& config, int64_t vocab_size) {
  LanguageModel model(config, vocab_size, 5, at::kCPU);
  const at::NoGradGuard no_grad;
  auto flat = model.parameters().flat();
  flat.add_(0.05 * random_normal(flat.sizes(), 11, at::kFloat));
  return model;
}

inline TensorMap weights_of(const LanguageModel& model, const std::string& prefix = "") {
  TensorMap tensors;
  for (const auto& p : model.parameters().all()) tensors.emplace(prefix + p->name, p->value.detach().clone());
  return tensors;
}

inline bool same_tensors(const TensorMap& a, const TensorMap& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && bitwise_equal(x.second, y.second);
  });
}

inline DataSpec data_spec(int64_t vocab_size) {
  DataSpec spec;
  spec.task = "joint_recall";
  spec.vocab_size = vocab_size;
  spec.padded_tokens = 74;
  spec.slice_columns = {"n_context", "n_key"};
  spec.chance = 0.25;
  return spec;
}

inline ConvertOptions options(const std::string& in, const std::string& out, WeightForm to) {
  ConvertOptions o;
  o.in = in;
  o.out = out;
  o.to = to;
  o.data = data_spec(20);
  return o;
}

}  // namespace hax::test
