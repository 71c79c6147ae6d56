// Locality-sensitive hashing of queries and keys (spec sections 3 and 3.1). Nothing here is differentiable.
#pragma once

#include "lib/ops/key_set.h"

namespace hax::ops {

// Statistics before hashing, (T, d) -> (T, d), in packed form.
// `paper`, in x's dtype (mean, difference, norm and quotient are rounded to it, sums are wider inside): minus
// the mean over the padded sequence, then each feature divided by its norm over the padded sequence. Padded
// positions hold 0 before centring and -mean after it: with n real positions out of L, norm^2 = sum_real (x -
// mean)^2 + (L - n) mean^2.
at::Tensor centre_over_sequence(const at::Tensor& x, const PackedLayout& layout, Path path = Path::automatic);
// `causal`, fp32 or wider: minus the mean over positions <= its own.
at::Tensor centre_by_running_mean(const at::Tensor& x, const PackedLayout& layout,
                                  Path path = Path::automatic);

// projection (T, h) = statistics(x) R. bin = sum_b 2^b [projection_b > 0], (T) int64; h <= 30.
at::Tensor sign_bins(const at::Tensor& projection, Path path = Path::automatic);
// bin = argmax_b projection_b, the first of ties, (T) int64.
at::Tensor argmax_bins(const at::Tensor& projection);

// How keys and queries become bins: what is taken off them (above), then 2^h bins by signs or h by argmax.
enum class HashStatistics { none, running_mean, whole_sequence };
struct HashFunction {
  HashStatistics statistics;
  bool sign;
  int64_t n_bins;
};

// What a hash decides about a layer's keys and queries. The projections (T, h) are kept where the path makes
// them, which the fused kernel of a GPU does not.
struct LshDecision {
  LshMembership membership;
  at::Tensor query_projection, key_projection;
};
// K, Q (T, d), R (d, h); h <= 30 for signs.
LshDecision lsh(const at::Tensor& K, const at::Tensor& Q, const at::Tensor& R, const HashFunction& hash,
                int64_t width, const PackedLayout& layout, Path path = Path::automatic);

// Ranks and counts from bins in [0, n_bins).
LshMembership lsh_membership(const at::Tensor& query_bin, const at::Tensor& key_bin, int64_t n_bins,
                             int64_t width, const PackedLayout& layout, Path path = Path::automatic);

}  // namespace hax::ops
