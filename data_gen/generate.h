// From a task to a dataset folder: drawing, de-duplication, writing.
//
// Every example of a split is drawn from StreamKey{seed, Purpose::example, layer = split, step = attempt,
// index}. All examples are distinct, inside a split and across splits: valid is drawn first, then test,
// then train, each by ascending index; an example that exists already is drawn again with the next
// attempt, the earlier one keeps its draw. The bytes on disk do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data_gen/example_set.h"
#include "data_gen/task.h"
#include "lib/config/config.h"
#include "lib/data/manifest.h"

namespace hax {

struct GenerateOptions {
  std::string out;                                            // folder, new or empty
  int threads = 0;                                            // 0: all cores
  std::string program_version;                                // recorded in the manifest
  std::function<void(int64_t done, int64_t total)> progress;  // examples; may be empty
  std::function<bool()> should_stop;                          // asked between blocks; may be empty
};

struct GenerateReport {
  bool stopped = false;  // should_stop said so: nothing is left on disk
  int64_t examples = 0;
  int64_t tokens = 0;
  int64_t bytes = 0;
  int64_t redrawn = 0;  // draws thrown away as duplicates
  double draw_seconds = 0.0;
  double deduplicate_seconds = 0.0;
  double encode_seconds = 0.0;
  double write_seconds = 0.0;  // to disk, fsync and checksums included
  std::string fingerprint;
};

// The one way to draw an example of a split. `seed` is data.seed.
void draw_example(const Task& task, int64_t seed, Split split, int64_t index, uint32_t attempt,
                  Example& result);

// Throws UsageError naming the numbers when some size has fewer distinct examples than the three splits
// ask for together, or when a count or the seed is out of range.
void check_counts(const Task& task, const DataConfig& data);

// Writes the three splits and the manifest. Uses seed and example counts of `data`. Throws UsageError
// before anything is written, RuntimeError when the disk fails (nothing is left then).
GenerateReport generate_dataset(const TaskConfig& task, const DataConfig& data,
                                const GenerateOptions& options);

}  // namespace hax
