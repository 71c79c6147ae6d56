#include "data_gen/bench.h"

#include <sys/resource.h>

#include <chrono>
#include <filesystem>
#include <iomanip>

#include "lib/base/parallel.h"
#include "lib/data/dataset.h"

namespace hax {

void bench_generation(const TaskConfig& task, const DataConfig& data, const std::string& folder, int threads,
                      std::ostream& out) {
  using Clock = std::chrono::steady_clock;
  GenerateOptions options;
  options.out = folder;
  options.threads = threads > 0 ? threads : hardware_threads();
  options.program_version = "bench";
  const auto start = Clock::now();
  const GenerateReport report = generate_dataset(task, data, options);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();

  const auto open_start = Clock::now();
  Dataset::open(folder, options.threads);
  const double open_seconds = std::chrono::duration<double>(Clock::now() - open_start).count();
  for (Split split : kSplits) std::filesystem::remove(split_path(folder, split));
  std::filesystem::remove(manifest_path(folder));
  std::filesystem::remove(folder);

  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto row = [&](const char* name, double value, const char* unit) {
    out << std::left << std::setw(26) << name << std::right << std::fixed << std::setprecision(2)
        << std::setw(14) << value << " " << unit << "\n";
  };
  row("threads", options.threads, "");
  row("examples", static_cast<double>(report.examples), "");
  row("redrawn duplicates", static_cast<double>(report.redrawn), "");
  row("size on disk", static_cast<double>(report.bytes) / 1e6, "MB");
  row("drawing and hashing", report.draw_seconds, "s");
  row("de-duplication", report.deduplicate_seconds, "s");
  row("encoding", report.encode_seconds, "s");
  row("writing and checksums", report.write_seconds, "s");
  row("whole generation", seconds, "s");
  row("rate", static_cast<double>(report.examples) / seconds, "examples/s");
  row("opening with all checks", open_seconds, "s");
  row("peak resident memory", static_cast<double>(usage.ru_maxrss) / 1024.0, "MiB");
}

}  // namespace hax
