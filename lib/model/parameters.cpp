#include "lib/model/parameters.h"

#include <stdexcept>

namespace hax {

at::Tensor& ParameterSet::add(const std::string& name, const at::Tensor& initial) {
  if (flat_.defined()) throw std::invalid_argument("parameter " + name + " comes after finish()");
  if (find(name)) throw std::invalid_argument("there are two parameters " + name);
  auto parameter = std::make_unique<Parameter>();
  parameter->name = name;
  parameter->shape = initial.sizes().vec();
  parameter->value = initial.detach().clone(at::MemoryFormat::Contiguous).requires_grad_(true);
  parameters_.push_back(std::move(parameter));
  return parameters_.back()->value;
}

void ParameterSet::finish(at::Device device, at::ScalarType dtype) {
  if (flat_.defined()) throw std::invalid_argument("finish() was called before");
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  flat_ = at::empty({numel()}, options);
  flat_grad_ = at::zeros({numel()}, options);
  int64_t offset = 0;
  for (const auto& parameter : parameters_) {
    const int64_t n = parameter->value.numel();
    const auto view = [&](const at::Tensor& flat) {
      return flat.narrow(0, offset, n).view(parameter->shape).detach();
    };
    at::Tensor value = view(flat_);
    value.copy_(parameter->value);
    parameter->value = value.requires_grad_(true);
    parameter->value.mutable_grad() = view(flat_grad_);
    offset += n;
  }
}

const at::Tensor* ParameterSet::find(const std::string& name) const {
  for (const auto& parameter : parameters_) {
    if (parameter->name == name) return &parameter->value;
  }
  return nullptr;
}

void ParameterSet::zero_grad() {
  const at::NoGradGuard no_grad;
  flat_grad_.zero_();
}

int64_t ParameterSet::numel() const {
  int64_t total = 0;
  for (const auto& parameter : parameters_) total += parameter->value.numel();
  return total;
}

}  // namespace hax
