// Where the time of GPU work goes, kernel by kernel.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace hax {

struct KernelTime {
  std::string name;
  int64_t calls = 0;
  double microseconds = 0.0;  // of all calls
};

// Runs `work`, which waits for what it starts, and lists kernels and copies by their total time, longest
// first; those inside CUDA graphs too. Where `trace` names a file it is written as well: when each of them
// ran and on which stream, as a Chrome trace (JSON, for chrome://tracing or Perfetto). Throws RuntimeError
// where this build or machine cannot tell, or the file cannot be written.
std::vector<KernelTime> profile_kernels(const std::function<void()>& work, const std::string& trace = "");

}  // namespace hax
