// A model's parameters by official name, as views of one flat buffer: optimiser, clipping and checkpoints
// touch one tensor.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lib/ops/torch.h"

namespace hax {

struct Parameter {
  std::string name;  // "layers.0.mixer.A_log"
  std::vector<int64_t> shape;
  at::Tensor value;  // leaf that requires grad; a view of the flat buffer after finish()
};

class ParameterSet {
 public:
  // Registers a parameter and its initial value (CPU, any float dtype). The reference stays valid as long as
  // the set. Throws std::invalid_argument for a name that is taken, or after finish().
  at::Tensor& add(const std::string& name, const at::Tensor& initial);
  // Lays all values (in `dtype`) and their gradients out in flat buffers on `device`, in the order of add().
  // Called once, after the last add.
  void finish(at::Device device, at::ScalarType dtype);

  const std::vector<std::unique_ptr<Parameter>>& all() const { return parameters_; }
  const at::Tensor* find(const std::string& name) const;  // null when there is none
  at::Tensor flat() const { return flat_; }               // (numel)
  // (numel), zero where backward reached nothing: each value's .grad() is a view of it, and backward adds in
  // place.
  at::Tensor flat_grad() const { return flat_grad_; }
  void zero_grad();
  int64_t numel() const;

 private:
  std::vector<std::unique_ptr<Parameter>> parameters_;
  at::Tensor flat_, flat_grad_;
};

}  // namespace hax
