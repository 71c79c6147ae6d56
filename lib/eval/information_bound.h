// What a state of b bits can know of a table of n entries, each uniform over V values (spec section 5,
// Cor. 3.1; derived in docs/tables.md). They hold for any model whose only memory of the table is the state,
// however its weights were found, and also when each answer is shown after its question.
#pragma once

#include <cstdint>

#include "lib/config/config.h"

namespace hax {

// The largest probability of getting all n entries right: min(1, 2^b / V^n).
double whole_table_bound(double bits, int64_t entries, int64_t values);

// The largest expected share of entries that are right: the largest p in [1/V, 1] with
//   n (log2 V - H2(1 - p) - (1 - p) log2(V - 1)) <= b,   H2 the binary entropy in bits.
// 1/V at b = 0 and 1 from b = n log2 V on.
double entry_bound(double bits, int64_t entries, int64_t values);

struct InformationBound {
  double entry = 1.0;
  double whole_table = 1.0;
};
// Means over the table sizes of a joint-recall task, which its data hold in equal numbers. Throws
// std::invalid_argument for another task.
InformationBound information_bound(const TaskConfig& task, double bits);

}  // namespace hax
