#pragma once

#include <algorithm>

#include "lib/ops/layout.h"

namespace hax::ops {

// body(begin, end) on disjoint ranges of sequences, each run by one thread and of about 64 tokens or more.
// Whoever writes only the rows of its own sequences gets the same bits from any number of threads.
template <class Body>
void for_sequences(const PackedLayout& layout, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, 64 * layout.batch() / layout.total());
  at::parallel_for(0, layout.batch(), grain, body);
}

}  // namespace hax::ops
