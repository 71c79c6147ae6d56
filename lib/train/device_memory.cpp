#include "lib/train/device_memory.h"

namespace hax {

#ifndef HAX_CUDA
std::optional<DeviceMemory> device_memory(at::Device) { return std::nullopt; }
#endif

}  // namespace hax
