#include "lib/base/nvidia_driver.h"

#include <dlfcn.h>

namespace hax {
namespace {

constexpr int kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE

template <class Function>
Function* look_up(void* driver, const char* name) {
  return reinterpret_cast<Function*>(dlsym(driver, name));
}

std::string error_text(void* driver, int error) {
  using Describe = int(int, const char**);
  std::string text = "error " + std::to_string(error);
  const char* found = nullptr;
  if (auto* name = look_up<Describe>(driver, "cuGetErrorName"); name && name(error, &found) == 0 && found)
    text += std::string(" ") + found;
  if (auto* words = look_up<Describe>(driver, "cuGetErrorString");
      words && words(error, &found) == 0 && found)
    text += std::string(", ") + found;
  return text;
}

}  // namespace

std::string cuda_version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

NvidiaDriver ask_nvidia_driver() {
  NvidiaDriver out;
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return out;
  out.found = true;
  auto* const version = look_up<int(int*)>(driver, "cuDriverGetVersion");
  auto* const init = look_up<int(unsigned)>(driver, "cuInit");
  auto* const count = look_up<int(int*)>(driver, "cuDeviceGetCount");
  auto* const name = look_up<int(char*, int, int)>(driver, "cuDeviceGetName");
  auto* const memory = look_up<int(size_t*, int)>(driver, "cuDeviceTotalMem_v2");
  if (!version || !init || !count || !name || !memory) {
    out.error = "libcuda.so.1 lacks functions of CUDA's driver";
    return out;
  }
  if (version(&out.cuda_version) != 0) out.cuda_version = 0;
  int n = 0;
  int error = init(0);
  if (error == 0) error = count(&n);
  if (error != 0 && error != kNoDevice) out.error = error_text(driver, error);
  for (int i = 0; i < n; ++i) {
    char text[256] = "";
    size_t bytes = 0;
    if (name(text, sizeof text, i) == 0 && memory(&bytes, i) == 0)
      out.gpus.push_back({text, static_cast<double>(bytes) / (1 << 30)});
  }
  return out;
}

std::optional<CudaFault> cuda_fault(const CudaFacts& facts) {
  const NvidiaDriver& driver = facts.driver;
  if (facts.built_with == 0)
    return CudaFault{"this build of hax has no CUDA", "build it with LibTorch's CUDA half (-DHAX_CUDA=ON)"};
  const std::string built = "CUDA " + cuda_version_text(facts.built_with);
  if (!driver.found) {
    return CudaFault{
        "no NVIDIA driver is here (libcuda.so.1)",
        "install one for " + built + ", or start the container with the GPUs (docker run --gpus all)"};
  }
  if (!driver.error.empty()) {
    return CudaFault{"the NVIDIA driver does not start (" + driver.error + ")",
                     "see whether nvidia-smi works; after an update of the driver start the machine anew",
                     true};
  }
  if (driver.gpus.empty()) {
    return facts.visible_devices
               ? CudaFault{"no CUDA device is visible (CUDA_VISIBLE_DEVICES is '" + *facts.visible_devices +
                               "')",
                           "unset it, or name a device that nvidia-smi -L lists"}
               : CudaFault{"no CUDA device is visible", "see whether nvidia-smi -L lists one"};
  }
  // Within a major version every driver runs what was built with any.
  if (driver.cuda_version != 0 && driver.cuda_version / 1000 < facts.built_with / 1000) {
    return CudaFault{"the NVIDIA driver supports CUDA " + cuda_version_text(driver.cuda_version) +
                         ", and hax was built with " + built,
                     "update the driver to one for CUDA " + std::to_string(facts.built_with / 1000), true};
  }
  if (!facts.runtime_works) {
    const std::string words = facts.runtime_words.empty() ? "" : " (" + facts.runtime_words + ")";
    return CudaFault{
        "the NVIDIA driver shows " + driver.gpus.front().name + ", and LibTorch cannot use it" + words,
        "see whether another program of CUDA " + cuda_version_text(facts.built_with) + " works here", true};
  }
  return std::nullopt;
}

}  // namespace hax
