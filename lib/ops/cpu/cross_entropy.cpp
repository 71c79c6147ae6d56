#include "lib/ops/cpu/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "lib/ops/cpu/math.h"

namespace hax::cpu {

void cross_entropy_forward(const float* logits, const int64_t* target, int64_t V, float* loss,
                           Normaliser* normalisers, bool* correct, int64_t begin, int64_t end) {
  for (int64_t s = begin; s < end; ++s) {
    const float* row = logits + s * V;
    float greatest = row[0];
#pragma omp simd reduction(max : greatest)
    for (int64_t v = 0; v < V; ++v) greatest = row[v] > greatest ? row[v] : greatest;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t v = 0; v < V; ++v) sum += exp(row[v] - greatest);
    normalisers[s] = {greatest, 1.0f / sum};
    // In double: the compiler may regroup the terms.
    const double below = static_cast<double>(row[target[s]]) - static_cast<double>(greatest);
    loss[s] = static_cast<float>(std::log(static_cast<double>(sum)) - below);
    correct[s] = std::find(row, row + V, greatest) - row == target[s];
  }
}

void cross_entropy_backward(const float* logits, const int64_t* target, int64_t V,
                            const Normaliser* normalisers, float scale, float* dlogits, int64_t begin,
                            int64_t end) {
  for (int64_t s = begin; s < end; ++s) {
    const float* row = logits + s * V;
    const float peak = normalisers[s].greatest, factor = scale * normalisers[s].inverse;
    float* out = dlogits + s * V;
#pragma omp simd
    for (int64_t v = 0; v < V; ++v) out[v] = factor * exp(row[v] - peak);
    out[target[s]] -= scale;
  }
}

}  // namespace hax::cpu
