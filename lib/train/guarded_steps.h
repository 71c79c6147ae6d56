// A queue of training steps whose device may fail: memory that runs out, a launch that is refused, a device
// that is taken away. Such a fault becomes a RuntimeError that says at which step and with which batch, and
// for memory what would fit. The state of the last checkpoint is untouched by it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lib/train/device_memory.h"
#include "lib/train/step_queue.h"

namespace hax {

struct BatchSize {
  int64_t sequences = 0, tokens = 0, longest = 0;
};

// What to say of memory that ran out in a batch. `before`: the memory when training began, with weights and
// optimiser alone; `now`: when it ran out; `fitted`: tokens of the largest batch that fitted before, or 0.
// The estimate of what fits is the memory that is left for a batch over the measured bytes a token; without a
// batch that fitted these are a lower bound, and the estimate is an upper one. `reason`: LibTorch's message,
// which has the size of the tensor that did not fit.
std::string memory_fault(const BatchSize& batch, const std::optional<DeviceMemory>& before,
                         const std::optional<DeviceMemory>& now, int64_t fitted, const std::string& reason);

std::unique_ptr<StepQueue> guard_steps(std::unique_ptr<StepQueue> steps, at::Device device);

}  // namespace hax
