// Examples of a split that a model was trained on.
#pragma once

#include <functional>

#include "data_gen/stream.h"
#include "lib/data/dataset.h"

namespace hax {

// How the work is done: on `threads` threads, until `stopped` says so, and then the count is meaningless.
struct OverlapOptions {
  int threads = 1;
  std::function<bool()> stopped = [] { return false; };
};

// How many of `examples` stand in `others` too, token for token (by data_gen/example_set.h's hashes).
int64_t shared_examples(const FileSource& examples, const FileSource& others,
                        const OverlapOptions& options = {});
// How many of them are among the first `drawn` examples of a stream, which are drawn again.
int64_t shared_examples(const FileSource& examples, const TaskStream& stream, int64_t drawn,
                        const OverlapOptions& options = {});

}  // namespace hax
