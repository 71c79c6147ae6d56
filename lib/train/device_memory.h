// How a GPU's memory is used, as LibTorch's allocator and the driver count it.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/ops/torch.h"

namespace hax {

struct DeviceMemory {
  int64_t total = 0;  // bytes of the device
  int64_t held = 0;   // by tensors now
  int64_t most = 0;   // by tensors at once, since the process began
};

// Nothing for a CPU, in programs built without CUDA, and where the device no longer answers.
std::optional<DeviceMemory> device_memory(at::Device device);

}  // namespace hax
