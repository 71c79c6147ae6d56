// Draws without replacement, permutations, and logarithms of how many there are.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/base/random.h"

namespace hax {

// A uniform permutation of 0 .. n-1, n >= 1 (Fisher-Yates, inside out).
void permutation(RandomStream& random, int64_t n, int32_t* out);

// `count` distinct numbers of [first, last) in random order, by rejection: quick while `count` is well below
// the size of the range. Replaces `out`.
void distinct(RandomStream& random, int64_t first, int64_t last, int64_t count, std::vector<int32_t>& out);

double log2_factorial(int64_t n);
double log2_falling(int64_t n, int64_t k);  // of n (n - 1) ... (n - k + 1)
double log2_choose(int64_t n, int64_t k);

}  // namespace hax
