// A safetensors file of weights under official names: embeddings.weight, layers.I.norm.weight,
// layers.I.mixer.*, norm_f.weight. Read as it comes: the whole may carry a prefix ("backbone." in causal-LM
// classes), the embedding may be called embedding.weight, and an lm_head.weight must be the tied embedding.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/base/safetensors.h"
#include "lib/model/parameters.h"

namespace hax {

class WeightFile {
 public:
  static bool recognises(const Safetensors& file);  // it has an embedding
  // Throws DataError when there is not one embedding, when tensors stand outside its prefix, or when the
  // output matrix is another one.
  explicit WeightFile(const Safetensors& file);

  const std::string& path() const { return file_.path(); }
  const std::string& prefix() const { return prefix_; }
  bool has_head() const { return has_head_; }
  const std::map<std::string, std::string>& names() const { return names_; }  // official -> in the file
  bool contains(const std::string& name) const { return names_.contains(name); }
  const std::vector<int64_t>& shape(const std::string& name) const;  // throws DataError when it is missing
  at::Tensor tensor(const std::string& name) const;                  // fp32 on the CPU; of F32, F16 or BF16

  // Fills every parameter. Throws DataError that lists all tensors that are missing, unknown or of another
  // shape; nothing is filled then.
  void fill(const ParameterSet& parameters) const;

 private:
  at::Tensor read(const std::string& name_in_file) const;
  void check_head(const std::string& head, const std::string& embedding) const;

  Safetensors file_;
  std::string prefix_;
  bool has_head_ = false;
  std::map<std::string, std::string> names_;
};

// Writes the parameters, named prefix + official name, as F32, and the embedding among them once more as the
// tied lm_head.weight when `head` is set.
void write_weights(const std::string& path, const std::vector<const Parameter*>& parameters,
                   const std::string& prefix, bool head);

}  // namespace hax
