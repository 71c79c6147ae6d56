#include "apps/version.h"

#include <torch/version.h>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "hax_version.h"
#include "lib/base/parallel.h"
#include "lib/model/device.h"

namespace hax {

std::string version_report(bool json) {
  const CudaFacts cuda = cuda_facts();
  const auto fault = cuda_fault(cuda);
  if (json) {
    nlohmann::ordered_json out = {{"version", HAX_VERSION},        {"commit", HAX_COMMIT},
                                  {"libtorch", TORCH_VERSION},     {"cuda_runtime", cuda.built_with},
                                  {"threads", hardware_threads()}, {"gpus", nlohmann::ordered_json::array()}};
    if (fault) out["gpu_fault"] = fault->what;
    for (const auto& gpu : cuda.driver.gpus)
      out["gpus"].push_back({{"name", gpu.name}, {"memory_gib", gpu.gibibytes}});
    return out.dump(2) + "\n";
  }
  std::ostringstream out;
  out << "hax " << HAX_VERSION << " (commit " << HAX_COMMIT << ")\nLibTorch " << TORCH_VERSION << "\nCUDA ";
  if (cuda.built_with != 0) {
    out << "runtime " << cuda_version_text(cuda.built_with);
  } else {
    out << "not built in";
  }
  out << "\nCPU threads " << hardware_threads() << '\n';
  for (const auto& gpu : cuda.driver.gpus)
    out << "GPU " << gpu.name << ", " << std::lround(gpu.gibibytes) << " GiB\n";
  if (fault) out << (cuda.driver.gpus.empty() ? "GPU none: " : "GPU unusable: ") << fault->what << '\n';
  return out.str();
}

}  // namespace hax
