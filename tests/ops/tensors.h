// What the tests of tensor code share: golden tensors, random inputs, layouts, errors and gradients.
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "lib/base/random.h"
#include "lib/base/safetensors.h"
#include "lib/ops/backward.h"
#include "lib/ops/layout.h"

namespace hax::test {

using Tensors = std::vector<at::Tensor>;

// HAX_GOLDENS names another folder with files of the same kind.
inline std::string golden_path(const std::string& file) {
  const char* folder = std::getenv("HAX_GOLDENS");
  return (folder ? std::string(folder) : std::string(HAX_SOURCE_DIR "/tests/golden")) + "/" + file;
}

inline at::ScalarType scalar_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
      return at::kDouble;
    case Dtype::f32:
      return at::kFloat;
    case Dtype::bf16:
      return at::kBFloat16;
    case Dtype::i64:
      return at::kLong;
    case Dtype::u8:
      return at::kByte;
    case Dtype::boolean:
      return at::kBool;
    default:
      throw std::invalid_argument("no golden tensor has this dtype: " + std::string(dtype_name(dtype)));
  }
}

inline at::Tensor load_tensor(const Safetensors& file, const std::string& name) {
  const TensorInfo& info = file.info(name);
  at::Tensor tensor = at::empty(info.shape, at::TensorOptions().dtype(scalar_type(info.dtype)));
  const auto bytes = file.bytes(name);
  if (!bytes.empty()) std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

// max|x - expected| / max|expected|. Infinite where x has another shape or a NaN, or where all of
// `expected` is zero and x is not.
inline double relative_error(const at::Tensor& x, const at::Tensor& expected) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (!x.defined() || !expected.defined() || x.sizes() != expected.sizes()) return kInfinity;
  if (x.numel() == 0) return 0;
  const at::Tensor a = x.detach().to(at::kCPU, at::kDouble);
  const at::Tensor b = expected.detach().to(at::kCPU, at::kDouble);
  const double difference = (a - b).abs().max().item<double>();
  const double scale = b.abs().max().item<double>();
  if (difference == 0) return 0;
  return std::isfinite(difference) && scale > 0 ? difference / scale : kInfinity;
}

inline bool bitwise_equal(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.dtype() == b.dtype() &&
         (a.numel() == 0 ||
          std::memcmp(a.contiguous().data_ptr(), b.contiguous().data_ptr(), a.nbytes()) == 0);
}

// N(0, 1), the same numbers for the same seed and count.
inline at::Tensor random_normal(at::IntArrayRef sizes, uint32_t seed, at::ScalarType dtype = at::kDouble) {
  at::Tensor tensor = at::empty(sizes, at::TensorOptions().dtype(at::kDouble));
  RandomStream stream(StreamKey{.seed = seed});
  double* data = tensor.data_ptr<double>();
  for (int64_t i = 0; i < tensor.numel(); ++i) data[i] = stream.normal();
  return tensor.to(dtype);
}

// Uniform over 0 .. bound - 1, int64.
inline at::Tensor random_below(int64_t bound, at::IntArrayRef sizes, uint32_t seed) {
  at::Tensor tensor = at::empty(sizes, at::TensorOptions().dtype(at::kLong));
  RandomStream stream(StreamKey{.seed = seed});
  int64_t* data = tensor.data_ptr<int64_t>();
  for (int64_t i = 0; i < tensor.numel(); ++i) data[i] = stream.below(static_cast<uint32_t>(bound));
  return tensor;
}

inline std::vector<int64_t> random_lengths(int64_t batch, int64_t longest, uint32_t seed) {
  RandomStream stream(StreamKey{.seed = seed, .index = 1});
  std::vector<int64_t> lengths(batch);
  for (auto& length : lengths) length = 1 + stream.below(static_cast<uint32_t>(longest));
  return lengths;
}

inline ops::PackedLayout layout_of(const std::vector<int64_t>& lengths, int64_t padded_length = 0,
                                   at::Device device = at::kCPU) {
  std::vector<int64_t> offsets{0};
  for (int64_t length : lengths) offsets.push_back(offsets.back() + length);
  return ops::make_layout(offsets, padded_length, device);
}

inline Tensors converted(const Tensors& tensors, at::ScalarType dtype, at::Device device = at::kCPU) {
  Tensors result;
  for (const auto& tensor : tensors) result.push_back(tensor.to(device, dtype));
  return result;
}

// A differentiable function of some tensors.
using TensorFunction = std::function<at::Tensor(const Tensors&)>;

// {f(inputs), d <f(inputs), grad_output> / d input, ...}; a gradient that f does not reach is zero.
// An undefined grad_output means ones. The inputs keep their strides.
inline Tensors output_and_gradients(const TensorFunction& f, const Tensors& inputs,
                                    const at::Tensor& grad_output) {
  Tensors leaves;
  for (const auto& input : inputs) leaves.push_back(input.detach().requires_grad_(true));
  const at::Tensor output = f(leaves);
  const at::Tensor upstream =
      grad_output.defined() ? grad_output.to(output.options()) : at::ones_like(output);
  Tensors result{output.detach()};
  const Tensors gradients = hax::ops::gradients(output, leaves, upstream, /*allow_unused=*/true);
  for (size_t i = 0; i < leaves.size(); ++i) {
    result.push_back(gradients[i].defined() ? gradients[i] : at::zeros_like(leaves[i]));
  }
  return result;
}

// The same gradients from central differences, for fp64 inputs: {f(inputs), gradients...}.
inline Tensors output_and_differences(const TensorFunction& f, const Tensors& inputs,
                                      const at::Tensor& grad_output, double step = 1e-6) {
  at::NoGradGuard no_grad;
  Tensors moved;
  for (const auto& input : inputs) moved.push_back(input.detach().clone(at::MemoryFormat::Contiguous));
  const at::Tensor output = f(moved);
  const at::Tensor upstream =
      grad_output.defined() ? grad_output.to(output.options()) : at::ones_like(output);
  const auto objective = [&] { return (f(moved) * upstream).sum().item<double>(); };
  Tensors result{output.clone()};
  for (auto& input : moved) {
    at::Tensor gradient = at::zeros_like(input);
    double* x = input.data_ptr<double>();
    double* g = gradient.data_ptr<double>();
    for (int64_t i = 0; i < input.numel(); ++i) {
      const double kept = x[i];
      x[i] = kept + step;
      const double above = objective();
      x[i] = kept - step;
      const double below = objective();
      x[i] = kept;
      g[i] = (above - below) / (2 * step);
    }
    result.push_back(gradient);
  }
  return result;
}

}  // namespace hax::test
