// Threads for the length of one call: no pool, so nothing is left behind by fork, exit or an exception.
#include "lib/base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <exception>
#include <fstream>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace hax {
namespace {

// Ranges a thread, so that one slow range does not leave the other threads idle.
constexpr int64_t ranges_per_thread = 4;

int cpus_of_affinity() {
  // The kernel refuses a mask shorter than its own, whose length it does not tell.
  for (int cpus = CPU_SETSIZE; cpus <= 1 << 20; cpus *= 2) {
    std::vector<unsigned long> mask(CPU_ALLOC_SIZE(cpus) / sizeof(unsigned long));
    const size_t bytes = mask.size() * sizeof(unsigned long);
    auto* const set = reinterpret_cast<cpu_set_t*>(mask.data());
    if (sched_getaffinity(0, bytes, set) == 0) return CPU_COUNT_S(bytes, set);
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

// The tightest limit from this process's cgroup up to the root that it can see.
int cpus_of_cgroup() {
  std::ifstream membership("/proc/self/cgroup");
  int cpus = INT_MAX;
  for (std::string line; std::getline(membership, line);) {
    if (!line.starts_with("0::/")) continue;  // the unified hierarchy; others are version 1
    for (std::string group = line.substr(3); !group.empty(); group.erase(group.rfind('/'))) {
      std::ifstream file("/sys/fs/cgroup" + group + "/cpu.max");
      if (std::string text; std::getline(file, text)) cpus = std::min(cpus, cpus_of_cpu_max(text));
    }
    std::ifstream file("/sys/fs/cgroup/cpu.max");
    if (std::string text; std::getline(file, text)) cpus = std::min(cpus, cpus_of_cpu_max(text));
  }
  return cpus;
}

}  // namespace

int cpus_of_cpu_max(std::string_view text) {
  std::istringstream fields{std::string(text)};
  int64_t quota = 0;
  int64_t period = 0;
  if (!(fields >> quota >> period) || quota < 1 || period < 1) return INT_MAX;
  return static_cast<int>(std::min<int64_t>(INT_MAX, quota / period + (quota % period != 0)));
}

int hardware_threads() { return std::max(1, std::min(cpus_of_affinity(), cpus_of_cgroup())); }

void parallel_for(int64_t n, int64_t grain, int threads, const std::function<void(int64_t, int64_t)>& body) {
  if (n < 0 || grain < 1 || threads < 1) {
    throw std::invalid_argument("parallel_for: n " + std::to_string(n) + ", grain " + std::to_string(grain) +
                                ", threads " + std::to_string(threads));
  }
  if (n == 0) return;
  const int64_t ranges = threads == 1 ? 1 : std::clamp<int64_t>(n / grain, 1, threads * ranges_per_thread);
  if (ranges == 1) {
    body(0, n);
    return;
  }

  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr first_exception;
  const auto work = [&] {
    for (int64_t range = next++; range < ranges; range = next++) {
      // The first n % ranges ranges are one longer.
      const int64_t begin = range * (n / ranges) + std::min(range, n % ranges);
      const int64_t end = begin + n / ranges + (range < n % ranges ? 1 : 0);
      try {
        body(begin, end);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first_exception) first_exception = std::current_exception();
        next = ranges;
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    const int64_t wanted = std::min<int64_t>(threads, ranges) - 1;
    try {
      helpers.reserve(static_cast<size_t>(wanted));
      for (int64_t i = 0; i < wanted; ++i) helpers.emplace_back(work);
    } catch (const std::system_error&) {
      // The system gives no more threads: those that started and this one share the work.
    }
    work();
  }
  if (first_exception) std::rethrow_exception(first_exception);
}

}  // namespace hax
