// Sums over parts that tasks wrote apart, in the order of the parts: the same for any number of threads.
#pragma once

#include <cstdint>

namespace hax::cpu {

// sum (n) = parts (count, n) summed over count. Elements [begin, end).
inline void sum_parts(const float* parts, int64_t count, int64_t n, float* sum, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) sum[i] = 0;
  for (int64_t part = 0; part < count; ++part) {
    const float* from = parts + part * n;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) sum[i] += from[i];
  }
}

}  // namespace hax::cpu
