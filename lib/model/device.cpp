#include "lib/model/device.h"

#include <cstdlib>

#include "lib/base/error.h"
#include "lib/base/log.h"

namespace hax {
namespace {

// LibTorch warns, the first time that it is asked, of a driver that it cannot use. cuda_fault() says it
// instead.
struct Heard : c10::WarningHandler {
  std::string words;
  void process(const c10::Warning& warning) override { words = warning.msg(); }
};

}  // namespace

CudaFacts cuda_facts() {
  const at::Context& torch = at::globalContext();
  CudaFacts facts;
  if (!torch.hasCUDART()) return facts;
  facts.built_with = static_cast<int>(torch.versionCUDART());
  facts.driver = ask_nvidia_driver();
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) facts.visible_devices = visible;
  Heard heard;
  const c10::WarningUtils::WarningHandlerGuard guard(&heard);
  facts.runtime_works = torch.hasCUDA();
  facts.runtime_words = heard.words;
  return facts;
}

at::Device choose_device(DeviceKind kind, const std::string& place) {
  if (kind == DeviceKind::cpu) return at::kCPU;
  const auto fault = cuda_fault(cuda_facts());
  if (!fault) return at::kCUDA;
  if (kind == DeviceKind::cuda)
    throw UsageError(place + ": cuda is asked for, and " + fault->what + "; " + fault->remedy +
                     ", or use cpu or auto");
  if (fault->broken) log::warn(fault->what + ", so the CPU computes; " + fault->remedy);
  return at::kCPU;
}

}  // namespace hax
