// Values in (-1, 1) that do not repeat: operands for measuring the machine, where zeros would flatter it and
// random numbers are not worth their time.
#pragma once

#include "lib/ops/torch.h"

namespace hax {

inline at::Tensor varied(at::IntArrayRef sizes, at::Device device) {
  const int64_t n = c10::multiply_integers(sizes);
  return at::arange(n, at::TensorOptions().dtype(at::kFloat).device(device)).mul_(0.7f).sin_().view(sizes);
}

}  // namespace hax
