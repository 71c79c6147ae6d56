#include "lib/model/init.h"

#include <algorithm>
#include <cmath>

#include "lib/base/random.h"

namespace hax::init {
namespace {

RandomStream stream(const Key& key) {
  return RandomStream({.seed = key.seed,
                       .purpose = Purpose::init,
                       .layer = static_cast<uint32_t>(key.layer),
                       .index = key.place});
}

template <class Draw>
at::Tensor filled(const std::vector<int64_t>& shape, const Draw& draw) {
  at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  float* data = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) data[i] = static_cast<float>(draw());
  return tensor;
}

}  // namespace

at::Tensor normal(const std::vector<int64_t>& shape, double std, const Key& key) {
  RandomStream random = stream(key);
  return filled(shape, [&] { return std * random.normal(); });
}

at::Tensor uniform(const std::vector<int64_t>& shape, double low, double high, const Key& key) {
  RandomStream random = stream(key);
  return filled(shape, [&] { return low + (high - low) * random.uniform(); });
}

at::Tensor constant(const std::vector<int64_t>& shape, double value) {
  return at::full(shape, value, at::TensorOptions().dtype(at::kFloat));
}

at::Tensor dt_bias(int64_t n, const Key& key) {
  constexpr double kLow = 1e-3, kHigh = 1e-1, kLeast = 1e-4;
  RandomStream random = stream(key);
  return filled({n}, [&] {
    const double dt = std::exp(std::log(kLow) + (std::log(kHigh) - std::log(kLow)) * random.uniform());
    const double clamped = std::max(dt, kLeast);
    return clamped + std::log(-std::expm1(-clamped));  // softplus^-1
  });
}

}  // namespace hax::init
