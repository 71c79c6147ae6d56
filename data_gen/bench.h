// How fast datasets are made on this machine: `hax bench data`.
#pragma once

#include <ostream>
#include <string>

#include "data_gen/generate.h"

namespace hax {

// Generates the dataset into `folder` (new or empty), opens it with every check, removes it, and prints
// examples a second, seconds a phase and peak memory.
void bench_generation(const TaskConfig& task, const DataConfig& data, const std::string& folder, int threads,
                      std::ostream& out);

}  // namespace hax
