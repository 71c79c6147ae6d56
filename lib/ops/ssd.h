// SSD, the scan of Mamba2 (Dao and Gu 2024; spec section 2.2). Per head a state S in R^{P x N}:
//   dt_t = softplus(dt_t + dt_bias);  S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T;  y_t = S_t C_t + D x_t
// Head h reads B and C of group h / (H / G). Each sequence of the layout starts from a zero state.
#pragma once

#include "lib/ops/layout.h"

namespace hax::ops {

struct SsdInputs {
  at::Tensor x;        // (T, H, P)
  at::Tensor dt;       // (T, H), before bias and softplus
  at::Tensor A;        // (H), negative
  at::Tensor B;        // (T, G, N)
  at::Tensor C;        // (T, G, N)
  at::Tensor D;        // (H)
  at::Tensor dt_bias;  // (H)
};

// (T, H, P), in x's dtype; arithmetic is at least fp32. Differentiable in all seven inputs.
// `chunk_size` steers the composite path alone.
at::Tensor ssd(const SsdInputs& in, const PackedLayout& layout, int64_t chunk_size = 64,
               Path path = Path::automatic);

// One token, T = 1: advances state (H, P, N), fp32 or wider, and returns y (1, H, P) in x's dtype. A zero
// state is that of an empty sequence. Not differentiable.
at::Tensor ssd_step(const SsdInputs& in, at::Tensor& state);

// The state after each sequence's last token, (B, H, P, N) fp32 or wider; not differentiable.
at::Tensor ssd_final_state(const SsdInputs& in, const PackedLayout& layout);

}  // namespace hax::ops
