#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "lib/bench/gpu_timing.h"

namespace hax {
namespace {

using Work = std::function<void()>;

constexpr double kGraphMilliseconds = 1.0;  // short work is captured several times over in one graph
constexpr int kGraphMost = 32;

// Does nothing in it make the host wait for the device, which a capture forbids? Runs it.
bool can_be_captured(const Work& work) {
  auto& state = c10::cuda::warning_state();
  const auto before = state.get_sync_debug_mode();
  state.set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR);
  bool quiet = true;
  try {
    work();
  } catch (const c10::OutOfMemoryError&) {
    state.set_sync_debug_mode(before);
    throw;
  } catch (const c10::Error&) {
    quiet = false;
  }
  state.set_sync_debug_mode(before);
  return quiet;
}

double event_milliseconds(const c10::cuda::CUDAStream& stream, const Work& work) {
  at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
  begin.record(stream);
  work();
  end.record(stream);
  stream.synchronize();
  return begin.elapsed_time(end);
}

// Each run of `once` is `times` runs of what is measured.
std::vector<double> measured(const c10::cuda::CUDAStream& stream, const Work& once, int times,
                             const TimingOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const auto late = [&](double share) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() >
           share * kSecondsMost;
  };
  for (int64_t i = 0; i < options.warmup && !late(0.5); ++i) event_milliseconds(stream, once);
  std::vector<double> times_of_one;
  for (int64_t i = 0; i < options.repeat && (i < kRunsLeast || !late(1.0)); ++i)
    times_of_one.push_back(event_milliseconds(stream, once) / times);
  return times_of_one;
}

void capture(at::cuda::CUDAGraph& graph, const Work& work, int times) {
  graph.capture_begin();
  for (int i = 0; i < times; ++i) work();
  graph.capture_end();
}

}  // namespace

Timing time_on_gpu(const Work& work, const TimingOptions& options) {
  c10::cuda::device_synchronize();
  const auto stream = c10::cuda::getStreamFromPool();
  const c10::cuda::CUDAStreamGuard guard(stream);
  work();  // handles, workspaces and tuning of libraries
  stream.synchronize();
  if (!can_be_captured(work)) return {measured(stream, work, 1, options), false};
  stream.synchronize();
  // A graph has memory of its own; what earlier runs left in the cache would be missing there.
  c10::cuda::CUDACachingAllocator::emptyCache();
  double milliseconds = 0.0;
  {
    at::cuda::CUDAGraph graph;
    capture(graph, work, 1);
    const Work replay = [&] { graph.replay(); };
    event_milliseconds(stream, replay);
    milliseconds = event_milliseconds(stream, replay);
    if (milliseconds >= kGraphMilliseconds) return {measured(stream, replay, 1, options), true};
  }
  const int times =
      static_cast<int>(std::clamp(std::ceil(kGraphMilliseconds / milliseconds), 1.0, 1.0 * kGraphMost));
  at::cuda::CUDAGraph graph;
  capture(graph, work, times);
  return {measured(
              stream, [&] { graph.replay(); }, times, options),
          true};
}

GpuBytes gpu_bytes() {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
  const auto& bytes = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  return {bytes.current, bytes.peak};
}

void reset_gpu_peak() { c10::cuda::CUDACachingAllocator::resetPeakStats(c10::cuda::current_device()); }

}  // namespace hax
