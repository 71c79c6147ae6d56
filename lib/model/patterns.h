// What the packed forward and the decoder of a pattern must agree on.
#pragma once

#include "lib/config/config.h"
#include "lib/ops/lsh.h"

namespace hax {

// Distance of the keys of `dilated` when a query may attend to `share` of max_length.
inline int64_t dilation_of(const SparseConfig& sparse, int64_t share) {
  return std::max<int64_t>(1, sparse.max_length / std::max<int64_t>(1, share));
}

// projection (T, h) -> bins (T) int64 in [0, n_bins), by the config's rule.
inline int64_t n_bins(const SparseConfig& sparse) {
  return sparse.hash_rule == HashRule::sign ? int64_t{1} << sparse.hash_bits : sparse.hash_bits;
}
inline at::Tensor hash_bins(const SparseConfig& sparse, const at::Tensor& projection) {
  return sparse.hash_rule == HashRule::sign ? ops::sign_bins(projection) : ops::argmax_bins(projection);
}

inline ops::HashFunction hash_function(const ModelConfig& config) {
  const SparseConfig& sparse = config.sparse;
  const auto statistics = config.mode == Statistics::paper             ? ops::HashStatistics::whole_sequence
                          : sparse.centring == Centring::running_mean ? ops::HashStatistics::running_mean
                                                                      : ops::HashStatistics::none;
  return {statistics, sparse.hash_rule == HashRule::sign, n_bins(sparse)};
}

}  // namespace hax
