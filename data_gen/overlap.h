// Examples that two splits have in common.
#pragma once

#include "lib/data/dataset.h"

namespace hax {

// How many of `examples` stand in `others` too, token for token (by data_gen/example_set.h's hashes).
int64_t shared_examples(const FileSource& examples, const FileSource& others);

}  // namespace hax
