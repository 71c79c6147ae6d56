// A = -exp(A_log) of a state-space mixer, made beside what comes before its scan.
#pragma once

#include "lib/model/parameters.h"
#include "lib/ops/lanes.h"

namespace hax {

class DecayRates {
 public:
  explicit DecayRates(const Parameter& A_log) : lane_(ops::kUrgentLanes - 1, {}) {
    A_ = -A_log.wide().exp();
    lane_.leave();
  }
  // In fp32 at least; differentiable. To be joined before anything else is put on the lane that is not to be
  // waited for.
  at::Tensor join() {
    lane_.join({A_});
    return A_;
  }

 private:
  ops::Lane lane_;
  at::Tensor A_;
};

}  // namespace hax
