#include "lib/bench/profile.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "lib/base/error.h"

namespace hax {

std::vector<KernelTime> profile_kernels(const std::function<void()>& work, const std::string& trace) {
  namespace profiler = torch::autograd::profiler;
  const profiler::ProfilerConfig config(profiler::ProfilerState::KINETO);
  const std::set<profiler::ActivityType> activities = {profiler::ActivityType::CUDA};
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  work();
  const auto result = profiler::disableProfiler();
  std::map<std::string, KernelTime> by_name;
  for (const auto& event : result->events()) {
    if (event.deviceType() != c10::DeviceType::CUDA) continue;
    KernelTime& kernel = by_name[event.name()];
    kernel.name = event.name();
    ++kernel.calls;
    kernel.microseconds += static_cast<double>(event.durationNs()) / 1e3;
  }
  if (by_name.empty())
    throw RuntimeError("profile: no GPU activity was recorded; CUPTI may be missing or forbidden");
  if (!trace.empty()) {
    result->save(trace);  // says nothing where it fails
    if (!std::filesystem::is_regular_file(trace))
      throw RuntimeError("profile: cannot write the trace " + trace +
                         "; is its folder writable and not full?");
  }
  std::vector<KernelTime> kernels;
  for (auto& [name, kernel] : by_name) kernels.push_back(std::move(kernel));
  std::sort(kernels.begin(), kernels.end(),
            [](const auto& a, const auto& b) { return a.microseconds > b.microseconds; });
  return kernels;
}

}  // namespace hax
