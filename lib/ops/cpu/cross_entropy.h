// Log-softmax, loss and argmax of fp32 rows (lib/ops/cross_entropy.h).
#pragma once

#include <cstdint>

namespace hax::cpu {

// What a row leaves for its gradient. Kept apart: their sum would lose digits where logits are large.
struct Normaliser {
  float greatest;
  float inverse;  // 1 / sum exp(logits - greatest)
};

// Row s of logits (S, V): loss_s = log sum exp(logits) - logits[target], and whether the first greatest logit
// is the target's. Targets lie in [0, V). Rows [begin, end).
void cross_entropy_forward(const float* logits, const int64_t* target, int64_t V, float* loss,
                           Normaliser* normalisers, bool* correct, int64_t begin, int64_t end);

// dlogits = scale (softmax - one-hot).
void cross_entropy_backward(const float* logits, const int64_t* target, int64_t V,
                            const Normaliser* normalisers, float scale, float* dlogits, int64_t begin,
                            int64_t end);

}  // namespace hax::cpu
