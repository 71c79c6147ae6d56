// The time and the memory of a piece of work. On a CPU by the steady clock. On a GPU by events around
// replays of a CUDA graph, so that the host's launches do not count; work that cannot be captured is timed
// call by call.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "lib/ops/torch.h"

namespace hax {

struct TimingOptions {
  int64_t warmup = 5;   // runs before the measured ones
  int64_t repeat = 30;  // measured runs; fewer where they would take longer than kSecondsMost
};
constexpr double kSecondsMost = 5.0;
constexpr int64_t kRunsLeast = 3;  // however long they take

struct Timing {
  std::vector<double> milliseconds;  // one a measured run
  bool graph = false;                // replays of a CUDA graph
  double quantile(double q) const;
};

// What `work` leaves on the device's current stream belongs to it.
Timing time_work(const std::function<void()>& work, at::Device device, const TimingOptions& options);

// The q-quantile (0..1) of a non-empty list, by linear interpolation.
double quantile(std::vector<double> values, double q);

// The most bytes of tensors on a device at once while this lives, beyond those at its construction: as the
// caching allocator of a GPU counts them, on a CPU what this thread and autograd's allocate. One at a time.
class PeakMemory {
 public:
  explicit PeakMemory(at::Device device);
  ~PeakMemory();
  PeakMemory(const PeakMemory&) = delete;
  PeakMemory& operator=(const PeakMemory&) = delete;
  int64_t bytes() const;

 private:
  class CpuAllocations;
  at::Device device_;
  int64_t before_ = 0;
  std::shared_ptr<CpuAllocations> cpu_;
  std::unique_ptr<c10::DebugInfoGuard> guard_;
};

}  // namespace hax
