// Is the loss of untrained weights what untrained weights must give?
//
// With d = d_model and embeddings N(0, s^2), the last norm leaves |x| <= sqrt(d), so a logit is N(0, d s^2)
// for a token that x knows nothing of, and the input's own embedding, which the residual stream carries, has
// a logit of at most about d s. Over V tokens the expected loss of an answer that x knows nothing of lies
// between
//   log V                                    (s -> 0)   and
//   log((V - 1) exp(d s^2 / 2) + exp(d s)).
// Below: the model is told the answer (targets one off, a leak). Above: logits are scaled wrongly.
#pragma once

#include "lib/check/check_result.h"
#include "lib/model/language_model.h"

namespace hax {

struct LossRange {
  double low, high;
};
// `answers`: how many different tokens the scored positions ask for. Their mean logit is N(0, d s^2 /
// answers), and the range is wider by four of its standard deviations.
LossRange initial_loss_range(const ModelConfig& config, int64_t vocab_size, int64_t answers);

// Fresh weights of the config on whole examples.
CheckResult check_initial_loss(const ModelConfig& config, int64_t vocab_size, uint64_t seed,
                               const Batch& batch, at::Device device);

}  // namespace hax
