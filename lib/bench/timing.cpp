#include "lib/bench/timing.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <stdexcept>
#include <unordered_map>

#include "lib/bench/gpu_timing.h"

namespace hax {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

Timing time_on_cpu(const std::function<void()>& work, const TimingOptions& options) {
  const auto begin = Clock::now();
  const auto late = [&](double share) { return milliseconds_since(begin) > share * 1e3 * kSecondsMost; };
  for (int64_t i = 0; i < options.warmup && !late(0.5); ++i) work();
  Timing timing;
  for (int64_t i = 0; i < options.repeat && (i < kRunsLeast || !late(1.0)); ++i) {
    const auto start = Clock::now();
    work();
    timing.milliseconds.push_back(milliseconds_since(start));
  }
  return timing;
}

}  // namespace

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(std::floor(at)), high = static_cast<size_t>(std::ceil(at));
  return values[low] + (at - std::floor(at)) * (values[high] - values[low]);
}

double Timing::quantile(double q) const { return hax::quantile(milliseconds, q); }

Timing time_work(const std::function<void()>& work, at::Device device, const TimingOptions& options) {
#ifdef HAX_CUDA
  if (device.is_cuda()) return time_on_gpu(work, options);
#endif
  return time_on_cpu(work, options);
}

// The allocator reports to the thread's profiler state, which autograd hands on to its threads.
class PeakMemory::CpuAllocations : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* data, int64_t bytes, size_t, size_t, c10::Device device) override {
    if (!device.is_cpu()) return;
    const std::lock_guard lock(mutex_);
    if (bytes > 0) {
      sizes_[data] = bytes;
      now_ += bytes;
      peak_ = std::max(peak_, now_);
    } else if (const auto known = sizes_.find(data); known != sizes_.end()) {  // else older than this
      now_ -= known->second;
      sizes_.erase(known);
    }
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const {
    const std::lock_guard lock(mutex_);
    return peak_;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<void*, int64_t> sizes_;
  int64_t now_ = 0, peak_ = 0;
};

PeakMemory::PeakMemory(at::Device device) : device_(device) {
#ifdef HAX_CUDA
  if (device.is_cuda()) {
    at::globalContext().lazyInitDevice(at::kCUDA);  // its allocator has no statistics before
    reset_gpu_peak();
    before_ = gpu_bytes().now;
    return;
  }
#endif
  cpu_ = std::make_shared<CpuAllocations>();
  guard_ = std::make_unique<c10::DebugInfoGuard>(c10::DebugInfoKind::PROFILER_STATE, cpu_);
}

PeakMemory::~PeakMemory() = default;

int64_t PeakMemory::bytes() const {
#ifdef HAX_CUDA
  if (device_.is_cuda()) return gpu_bytes().peak - before_;
#endif
  return cpu_->peak();
}

}  // namespace hax
