// Initial values (spec section 2.4). Every tensor has its own stream (seed, init, layer, place), so adding a
// parameter or changing a size leaves the other tensors as they were.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/ops/torch.h"

namespace hax::init {

struct Key {
  uint64_t seed;
  int64_t layer;
  uint32_t place;
};

at::Tensor normal(const std::vector<int64_t>& shape, double std, const Key& key);  // N(0, std^2), fp32, CPU
at::Tensor uniform(const std::vector<int64_t>& shape, double low, double high, const Key& key);
at::Tensor constant(const std::vector<int64_t>& shape, double value);
// Inverse softplus of exp(U(log 1e-3, log 1e-1)), clamped at 1e-4.
at::Tensor dt_bias(int64_t n, const Key& key);

}  // namespace hax::init
