// The gates at the end of a mixer, which take the sparse branch's output in: v = y + O * E, then v * SiLU(z),
// in Mamba2 under a norm (spec sections 2.1, 2.2).
#pragma once

#include "lib/ops/layout.h"

namespace hax::ops {

struct GateInputs {
  at::Tensor y, z;  // (T, d)
  at::Tensor O;     // (T, d): what the branch attended; undefined without a branch
  at::Tensor E;     // (d): read with O
};

// (T, d), in y's dtype; arithmetic in at least fp32. Differentiable in all inputs.
at::Tensor gate(const GateInputs& in, Path path = Path::automatic);
// rms_norm(gate(in)) with weight (d): one group over all of d.
at::Tensor gated_rms_norm(const GateInputs& in, const at::Tensor& weight, double eps,
                          Path path = Path::automatic);

}  // namespace hax::ops
