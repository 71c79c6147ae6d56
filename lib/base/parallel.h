// A plain loop over threads, for work whose results do not depend on which thread does it.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace hax {

// Threads to use when a config says 0: what the affinity mask and the cgroup (version 2) let us have.
int hardware_threads();

// CPUs that the text of a cgroup's cpu.max ("max 100000", "150000 100000") allows, rounded up;
// INT_MAX when it sets no limit.
int cpus_of_cpu_max(std::string_view text);

// Calls body(begin, end) on disjoint ranges that cover [0, n), at most `threads` at a time, each range at
// least min(n, grain) long. Where the ranges are cut depends on `threads`, so a body's results must not
// depend on it. The first exception thrown by a body is rethrown here, once no other body runs; ranges
// not yet begun are then dropped. Throws std::invalid_argument when n < 0, grain < 1 or threads < 1.
void parallel_for(int64_t n, int64_t grain, int threads, const std::function<void(int64_t, int64_t)>& body);

}  // namespace hax
