// Where models compute.
#pragma once

#include <string>

#include "lib/base/nvidia_driver.h"
#include "lib/config/config.h"
#include "lib/ops/torch.h"

namespace hax {

// Of this build, machine and process.
CudaFacts cuda_facts();

// cpu, cuda, or what there is: a warning says why, where there is a GPU's driver that cannot be used. Throws
// UsageError that names `place`, the key or flag behind `kind`, when cuda is asked for and cannot be had.
at::Device choose_device(DeviceKind kind, const std::string& place);

}  // namespace hax
