#include "apps/version.h"

#include <dlfcn.h>

#include <torch/version.h>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "hax_version.h"
#include "lib/base/parallel.h"
#include "lib/ops/torch.h"

namespace hax {
namespace {

struct Gpu {
  std::string name;
  double gibibytes;
};

// Through the driver's C interface, whose ABI is stable, so that no CUDA header is needed to build.
std::vector<Gpu> gpus() {
  std::vector<Gpu> found;
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return found;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto count = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  const auto name = reinterpret_cast<int (*)(char*, int, int)>(dlsym(driver, "cuDeviceGetName"));
  const auto memory = reinterpret_cast<int (*)(size_t*, int)>(dlsym(driver, "cuDeviceTotalMem_v2"));
  int n = 0;
  if (init && count && name && memory && init(0) == 0 && count(&n) == 0) {
    for (int i = 0; i < n; ++i) {
      char text[256] = "";
      size_t bytes = 0;
      if (name(text, sizeof text, i) == 0 && memory(&bytes, i) == 0) {
        found.push_back({text, static_cast<double>(bytes) / (1 << 30)});
      }
    }
  }
  return found;
}

}  // namespace

std::string version_report(bool json) {
  const bool built_for_cuda = at::globalContext().hasCUDART();
  const auto devices = at::globalContext().hasCUDA() ? gpus() : std::vector<Gpu>{};
  if (json) {
    nlohmann::ordered_json out = {{"version", HAX_VERSION},
                                  {"commit", HAX_COMMIT},
                                  {"libtorch", TORCH_VERSION},
                                  {"cuda_runtime", built_for_cuda ? at::globalContext().versionCUDART() : 0},
                                  {"threads", hardware_threads()},
                                  {"gpus", nlohmann::ordered_json::array()}};
    for (const auto& gpu : devices)
      out["gpus"].push_back({{"name", gpu.name}, {"memory_gib", gpu.gibibytes}});
    return out.dump(2) + "\n";
  }
  std::ostringstream out;
  out << "hax " << HAX_VERSION << " (commit " << HAX_COMMIT << ")\nLibTorch " << TORCH_VERSION << "\nCUDA ";
  if (built_for_cuda) {
    const auto version = at::globalContext().versionCUDART();
    out << "runtime " << version / 1000 << '.' << version % 1000 / 10;
  } else {
    out << "not built in";
  }
  out << "\nCPU threads " << hardware_threads() << '\n';
  if (devices.empty()) out << "GPU none\n";
  for (const auto& gpu : devices) {
    out << "GPU " << gpu.name << ", " << std::lround(gpu.gibibytes) << " GiB\n";
  }
  return out.str();
}

}  // namespace hax
