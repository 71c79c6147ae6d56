// Softmax attention over a key set: out_i = sum_j softmax_j(Q_i . K_j over allowed(i, j)) V_j (spec section
// 3). K arrives already divided by sqrt(d_qk).
#pragma once

#include "lib/ops/key_set.h"

namespace hax::ops {

constexpr int64_t kMaxPairs = int64_t{1} << 27;  // 512 MB a matrix of fp32

// Q, K (T, d_qk), V (T, d_v) -> (T, d_v) in V's dtype; softmax in at least fp32. Differentiable (once) in Q,
// K, V. `max_pairs` bounds the (query, key) matrices of the composite path alone, forward and backward.
at::Tensor sparse_attention(const at::Tensor& Q, const at::Tensor& K, const at::Tensor& V, const KeySet& keys,
                            const PackedLayout& layout, Path path = Path::automatic,
                            int64_t max_pairs = kMaxPairs);

}  // namespace hax::ops
