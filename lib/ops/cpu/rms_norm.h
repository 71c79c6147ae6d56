// RMS norms on fp32 rows (lib/ops/rms_norm.h). With u = x, or x SiLU(z) where z is given, and
// r = 1 / sqrt(mean(u^2) + eps):
//   y = u r w;   du = r (w dy - u r^2 mean(w dy u));   dw = sum over rows of dy u r.
//
// Rows are cut into blocks of a fixed size; each writes its part of dw apart (lib/ops/cpu/reduce.h).
#pragma once

#include <cstdint>

#include "lib/ops/cpu/rows.h"

namespace hax::cpu {

constexpr int64_t kNormBlock = 64;  // rows

struct NormInput {
  ConstRows x;          // (T, d)
  ConstRows z;          // (T, d); data null: no gate
  const float* weight;  // (d)
  int64_t rows;
  int64_t d;
  float eps;

  int64_t blocks() const { return (rows + kNormBlock - 1) / kNormBlock; }
};

// y (T, d), of blocks [begin, end).
void norm_forward(const NormInput& in, float* y, int64_t begin, int64_t end);

// dx, dz (T, d; dz unused without a gate) and parts (blocks, d) of dw.
void norm_backward(const NormInput& in, ConstRows dy, float* dx, float* dz, float* parts, int64_t begin,
                   int64_t end);

}  // namespace hax::cpu
