// Root-mean-square norms (Zhang and Sennrich 2019) over the last dimension; statistics in at least fp32.
#pragma once

#include <optional>

#include "lib/ops/layout.h"

namespace hax::ops {

// x (T, d), weight (d) -> (T, d): x / sqrt(mean(x^2) + eps) * weight, in `out` (by default x's dtype).
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, Path path = Path::automatic,
                    std::optional<at::ScalarType> out = std::nullopt);

// The residual stream: sum = x + h, in x's dtype (h undefined: x itself), and rms_norm(sum).
struct ResidualNorm {
  at::Tensor sum, norm;
};
ResidualNorm add_rms_norm(const at::Tensor& x, const at::Tensor& h, const at::Tensor& weight, double eps,
                          Path path = Path::automatic, std::optional<at::ScalarType> out = std::nullopt);

// rms_norm of some rows of x + h (T, d), in h's dtype: rows (S) int64 on their device, no two alike -> (S,
// d). Below 0: a row that is not in use; its result means nothing and may get no gradient but zero.
at::Tensor add_rms_norm_of_rows(const at::Tensor& x, const at::Tensor& h, const at::Tensor& rows,
                                const at::Tensor& weight, double eps, Path path = Path::automatic);

// Mamba2's norm: rms_norm(x * SiLU(z)) (norm_before_gate false, one group over all of d).
at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& z, const at::Tensor& weight, double eps,
                          Path path = Path::automatic);

}  // namespace hax::ops
