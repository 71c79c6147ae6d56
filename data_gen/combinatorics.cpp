#include "data_gen/combinatorics.h"

#include <cmath>

namespace hax {

void permutation(RandomStream& random, int64_t n, int32_t* out) {
  out[0] = 0;
  for (int32_t i = 1; i < n; ++i) {
    const uint32_t j = random.below(static_cast<uint32_t>(i) + 1);
    out[i] = out[j];
    out[j] = i;
  }
}

void distinct(RandomStream& random, int64_t first, int64_t last, int64_t count, std::vector<int32_t>& out) {
  std::vector<bool> taken(static_cast<size_t>(last - first));
  out.clear();
  while (static_cast<int64_t>(out.size()) < count) {
    const uint32_t drawn = random.below(static_cast<uint32_t>(last - first));
    if (taken[drawn]) continue;
    taken[drawn] = true;
    out.push_back(static_cast<int32_t>(first + drawn));
  }
}

double log2_factorial(int64_t n) { return log2_falling(n, n); }

double log2_falling(int64_t n, int64_t k) {
  double sum = 0.0;
  for (int64_t i = 0; i < k; ++i) sum += std::log2(static_cast<double>(n - i));
  return sum;
}

double log2_choose(int64_t n, int64_t k) { return log2_falling(n, k) - log2_factorial(k); }

}  // namespace hax
