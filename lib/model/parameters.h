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
  // While a CastValues lives, leaves: the value in another dtype, and a copy of it.
  at::Tensor cast, copy;

  // The value in `dtype`, differentiable.
  at::Tensor to(at::ScalarType dtype) const {
    if (cast.defined() && cast.scalar_type() == dtype) return cast;
    return copy.defined() && copy.scalar_type() == dtype ? copy : value.to(dtype);
  }
  // In fp32 at least, as ops take what is no matrix.
  at::Tensor wide() const { return to(at::promote_types(scalar_type(), at::kFloat)); }
  at::ScalarType scalar_type() const { return value.scalar_type(); }
  operator const at::Tensor&() const { return value; }
};

class ParameterSet {
 public:
  // Registers a parameter and its initial value (CPU, any float dtype). The reference stays valid as long as
  // the set. Throws std::invalid_argument for a name that is taken, or after finish().
  Parameter& add(const std::string& name, const at::Tensor& initial);
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
  friend class CastValues;
  std::vector<std::unique_ptr<Parameter>> parameters_;
  at::Tensor flat_, flat_grad_;
};

// While it lives, Parameter::to(dtype) is a leaf of its own, of fp32 and bf16 values in either dtype, all of
// them made by one kernel here, instead of a cast and its backward at every use; and backward writes
// gradients apart, which collect() brings together in flat_grad() by one kernel. No leaf is what both `value`
// and to() give: gradients from the two may be written at the same time (lib/ops/leaf_gradients.h). For a
// step that is captured as a graph: of one forward and backward pass.
class CastValues {
 public:
  // compute: what matrix products are computed in.
  CastValues(ParameterSet& parameters, at::ScalarType compute);
  ~CastValues();
  CastValues(const CastValues&) = delete;
  CastValues& operator=(const CastValues&) = delete;
  void collect();

 private:
  ParameterSet& parameters_;
};

}  // namespace hax
