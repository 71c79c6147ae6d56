// The selective scan of Mamba (Gu and Dao 2023; spec section 2.1). Per channel d a state h in R^N:
//   dt_t = softplus(delta_t + dt_bias);  h_t = exp(dt_t A_d) h_{t-1} + dt_t B_t u_t;  y_t = C_t . h_t + D u_t
// Each sequence of the layout starts from a zero state. The gate SiLU(z) is the mixer's: it multiplies the
// sparse branch as well.
#pragma once

#include "lib/ops/layout.h"

namespace hax::ops {

struct SelectiveScanInputs {
  at::Tensor u;        // (T, d_inner)
  at::Tensor delta;    // (T, d_inner), before bias and softplus
  at::Tensor A;        // (d_inner, N), negative
  at::Tensor B;        // (T, N)
  at::Tensor C;        // (T, N)
  at::Tensor D;        // (d_inner)
  at::Tensor dt_bias;  // (d_inner)
};

// (T, d_inner), in u's dtype; arithmetic is at least fp32. Differentiable in all seven inputs. The composite
// path holds a few (T, d_inner, N) tensors.
at::Tensor selective_scan(const SelectiveScanInputs& in, const PackedLayout& layout,
                          Path path = Path::automatic);

// One token, T = 1: advances state (d_inner, N), fp32 or wider, and returns y (1, d_inner) in u's dtype. A
// zero state is that of an empty sequence. Not differentiable.
at::Tensor selective_scan_step(const SelectiveScanInputs& in, at::Tensor& state);

// The state after each sequence's last token, (B, d_inner, N) fp32 or wider; not differentiable.
at::Tensor selective_scan_final_state(const SelectiveScanInputs& in, const PackedLayout& layout);

}  // namespace hax::ops
