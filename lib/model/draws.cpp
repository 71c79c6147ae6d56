#include "lib/model/draws.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "lib/base/random.h"

namespace hax {

PhiloxDraws::PhiloxDraws(uint64_t seed, uint32_t step, bool training, bool fixed_eval_hash,
                         bool fill_with_pad, int noise_bits)
    : seed_(seed),
      step_(step),
      training_(training),
      fixed_eval_hash_(fixed_eval_hash),
      fill_with_pad_(fill_with_pad),
      noise_bits_(noise_bits) {
  if (noise_bits < 1 || noise_bits > 32)
    throw std::invalid_argument("PhiloxDraws: noise of " + std::to_string(noise_bits) + " bits");
}

at::Tensor PhiloxDraws::hash_matrix(int64_t layer, int64_t d, int64_t h) const {
  RandomStream random({.seed = seed_,
                       .purpose = training_ ? Purpose::hash_matrix : Purpose::eval_hash_matrix,
                       .layer = static_cast<uint32_t>(layer),
                       .step = !training_ && fixed_eval_hash_ ? 0 : step_});
  at::Tensor matrix = at::empty({d, h}, at::TensorOptions().dtype(at::kFloat));
  float* data = matrix.mutable_data_ptr<float>();
  for (int64_t i = 0; i < d * h; ++i) data[i] = random.normal();
  return matrix;
}

at::Tensor PhiloxDraws::sampled_positions(int64_t layer, int64_t k, const ops::PackedLayout& layout) const {
  at::Tensor sampled = at::full({layout.batch(), k}, -1, at::TensorOptions().dtype(at::kLong));
  int64_t* rows = sampled.mutable_data_ptr<int64_t>();
  std::vector<std::pair<uint32_t, int64_t>>
      noise;  // complement of the noise, position: the smallest pairs win
  for (int64_t b = 0; b < layout.batch(); ++b) {
    RandomStream random({.seed = seed_,
                         .purpose = Purpose::ranking_sample,
                         .layer = static_cast<uint32_t>(layer),
                         .step = step_,
                         .index = static_cast<uint32_t>(b)});
    noise.clear();
    for (int64_t p = 0; p < layout.seqlen(b); ++p)
      noise.emplace_back(~random.next() >> (32 - noise_bits_), p);
    const int64_t real = std::min(k, layout.seqlen(b));
    std::partial_sort(noise.begin(), noise.begin() + real, noise.end());
    for (int64_t a = 0; a < real; ++a) rows[b * k + a] = noise[a].second;
    if (!fill_with_pad_) continue;
    for (int64_t a = real, p = layout.seqlen(b); a < k && p < layout.padded_length; ++a, ++p)
      rows[b * k + a] = p;
  }
  return sampled.to(layout.position.device());
}

}  // namespace hax
