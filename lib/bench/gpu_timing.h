// What lib/bench/timing.cpp asks of the current GPU; built when HAX_CUDA is on.
#pragma once

#include "lib/bench/timing.h"

namespace hax {

Timing time_on_gpu(const std::function<void()>& work, const TimingOptions& options);

struct GpuBytes {
  int64_t now, peak;  // of tensors, since the last reset
};
GpuBytes gpu_bytes();
void reset_gpu_peak();

}  // namespace hax
