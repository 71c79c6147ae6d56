#include "lib/model/parameters.h"

#include <stdexcept>

#include "lib/ops/pieces.h"

namespace hax {
namespace {

at::Tensor view(const at::Tensor& flat, int64_t offset, const std::vector<int64_t>& shape) {
  return flat.narrow(0, offset, c10::multiply_integers(shape)).view(shape).detach();
}

}  // namespace

Parameter& ParameterSet::add(const std::string& name, const at::Tensor& initial) {
  if (flat_.defined()) throw std::invalid_argument("parameter " + name + " comes after finish()");
  if (find(name)) throw std::invalid_argument("there are two parameters " + name);
  auto parameter = std::make_unique<Parameter>();
  parameter->name = name;
  parameter->shape = initial.sizes().vec();
  parameter->value = initial.detach().clone(at::MemoryFormat::Contiguous).requires_grad_(true);
  parameters_.push_back(std::move(parameter));
  return *parameters_.back();
}

void ParameterSet::finish(at::Device device, at::ScalarType dtype) {
  if (flat_.defined()) throw std::invalid_argument("finish() was called before");
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  flat_ = at::empty({numel()}, options);
  flat_grad_ = at::zeros({numel()}, options);
  int64_t offset = 0;
  for (const auto& parameter : parameters_) {
    at::Tensor value = view(flat_, offset, parameter->shape);
    value.copy_(parameter->value);
    parameter->value = value.requires_grad_(true);
    parameter->value.mutable_grad() = view(flat_grad_, offset, parameter->shape);
    offset += value.numel();
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

CastValues::CastValues(ParameterSet& parameters, at::ScalarType compute) : parameters_(parameters) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> values;
  for (const auto& parameter : parameters_.parameters_) values.push_back(parameter->value);
  const auto pieces = ops::cast_pieces(values, /*copies=*/parameters_.flat_.scalar_type() == compute);
  for (size_t i = 0; i < values.size(); ++i) {
    Parameter& parameter = *parameters_.parameters_[i];
    parameter.cast = pieces.casts[i].detach().requires_grad_(true);
    if (pieces.copies[i].defined()) parameter.copy = pieces.copies[i].detach().requires_grad_(true);
    parameter.value.mutable_grad().reset();
  }
}

void CastValues::collect() {
  const at::NoGradGuard no_grad;
  std::vector<ops::Piece> pieces;
  int64_t offset = 0;
  for (const auto& parameter : parameters_.parameters_) {
    const int64_t n = parameter->value.numel();
    const at::Tensor& copy = parameter->copy;
    pieces.push_back({offset, n, parameter->value.grad(), copy.defined() ? copy.grad() : at::Tensor(),
                      parameter->cast.grad()});
    offset += n;
  }
  ops::sum_pieces(pieces, parameters_.flat_grad_);
}

CastValues::~CastValues() {
  int64_t offset = 0;
  for (const auto& parameter : parameters_.parameters_) {
    parameter->cast.reset();
    parameter->copy.reset();
    parameter->value.mutable_grad() = view(parameters_.flat_grad_, offset, parameter->shape);
    offset += parameter->value.numel();
  }
}

}  // namespace hax
