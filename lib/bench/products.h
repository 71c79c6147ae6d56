// The matrix products inside a piece of work, and what they cost alone: a floor to compare a training step
// with.
#pragma once

#include <functional>

#include "lib/bench/timing.h"

namespace hax {

struct Products {
  int64_t count = 0;
  double flops = 0.0;         // 2 n m k each
  double milliseconds = 0.0;  // median of all of them in turn
};

// Runs `work` once, noting the shapes, strides and dtypes of every mm, addmm, bmm and baddbmm in it (backward
// included), then times the same products on random operands, with the same threads. Each has operands of its
// own, as in `work`.
Products time_products(const std::function<void()>& work, at::Device device, const TimingOptions& options);

}  // namespace hax
