#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include "lib/train/device_memory.h"

namespace hax {

std::optional<DeviceMemory> device_memory(at::Device device) {
  if (!device.is_cuda()) return std::nullopt;
  try {
    const c10::cuda::CUDAGuard guard(device);
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) return std::nullopt;
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(guard.current_device().index());
    const auto& bytes =
        stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
    return DeviceMemory{static_cast<int64_t>(total), bytes.current, bytes.peak};
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

}  // namespace hax
