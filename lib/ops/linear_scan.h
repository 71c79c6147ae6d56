// A linear recurrence over the first dimension, elementwise in the others: h_t = a_t h_{t-1} + x_t, h_{-1} =
// 0.
//
// Batched tensor operations on any device. Rows are cut into runs; all runs advance together, then the runs'
// last states are combined by the same scan over runs, so T rows take about 32 log_32 T sequential steps.
// Products of decays are formed by multiplication: none overflows while every |a_t| <= 1, none loses digits.
#pragma once

#include "lib/ops/torch.h"

namespace hax::ops {

// a, x (T, ...) of one shape and float dtype -> h (T, ...). a_t = 0 starts afresh at row t. Differentiable.
// Throws std::invalid_argument where the shapes differ.
at::Tensor linear_scan(const at::Tensor& a, const at::Tensor& x);

}  // namespace hax::ops
