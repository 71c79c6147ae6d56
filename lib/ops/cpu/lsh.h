// CPU kernels of locality-sensitive hashing (contracts: lib/ops/lsh.h). Each works on the sequences [begin,
// end) of a packed tensor, whose rows of sequence b are offsets[b] .. offsets[b + 1); no two sequences share
// a row.
#pragma once

#include <cstdint>

#include "lib/ops/cpu/rows.h"

namespace hax::cpu {

// y (T, d) contiguous = x minus the mean over positions <= its own.
void centre_by_running_mean(ConstRows x, int64_t d, const int64_t* offsets, int64_t begin, int64_t end,
                            float* y);

// bin (rows) = sum_b 2^b [projection_b > 0] over the h columns of contiguous rows [begin, end).
void sign_bins(const float* projection, int64_t h, int64_t begin, int64_t end, int64_t* bin);

// rank_j: keys before j in j's bin; count_i: keys at positions <= i in the query's bin. Bins lie in [0,
// n_bins).
void lsh_ranks(const int64_t* query_bin, const int64_t* key_bin, int64_t n_bins, const int64_t* offsets,
               int64_t begin, int64_t end, int64_t* rank, int64_t* count);

}  // namespace hax::cpu
