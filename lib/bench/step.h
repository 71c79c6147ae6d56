// The time of whole training steps: batch, forward, backward, ranking loss, AdamW, metrics.
#pragma once

#include <vector>

#include "lib/bench/products.h"
#include "lib/bench/profile.h"
#include "lib/train/train_step.h"

namespace hax {

struct StepTimes {
  std::vector<double> milliseconds;  // a step, one for each group of steps, in order
  double tokens_per_step = 0.0;      // mean, real tokens
  int64_t parameters = 0;
  int64_t peak_bytes = 0;  // of tensors, the model's included (PeakMemory)
  Products products;       // of one step run op by op
};

// Runs `warmup` + `steps` training steps on batches from `source` and times the latter in groups, after each
// of which the host waits for the device.
StepTimes bench_step(const Config& config, const ExampleSource& source, at::Device device, int64_t warmup,
                     int64_t steps);

// The kernels of `steps` training steps after `warmup`, and their trace (profile_kernels); CUDA alone.
std::vector<KernelTime> profile_step(const Config& config, const ExampleSource& source, at::Device device,
                                     int64_t warmup, int64_t steps, const std::string& trace = "");

}  // namespace hax
