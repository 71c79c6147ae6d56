// The parts of `hax bench` with files of their own.
#pragma once

#include "apps/commands.h"

namespace hax {

// scan, ssd, conv and attention, below `bench`.
void add_bench_ops(CLI::App& bench, Action& action);

}  // namespace hax
