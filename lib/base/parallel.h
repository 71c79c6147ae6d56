// A plain loop over threads, for work whose results do not depend on which thread does it.
#pragma once

#include <cstdint>
#include <functional>

namespace hax {

// Threads to use when a config says 0: what the machine (and its cgroup or affinity mask) lets us have.
int hardware_threads();

// Calls body(begin, end) on disjoint ranges that cover [0, n), at most `threads` at a time, each range at
// least `grain` long. The first exception thrown by a body is rethrown here.
void parallel_for(int64_t n, int64_t grain, int threads, const std::function<void(int64_t, int64_t)>& body);

}  // namespace hax
