// Keys and queries taken out of one projection's rows, and their gradients put together
// (lib/ops/keys_queries.h).
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// K (rows, d) = scale times columns [0, d) of from, Q = columns [d, 2 d). All rows begin on 16 bytes, and so
// do columns d. T: float or __nv_bfloat16.
template <class T>
void split_keys_queries(int64_t rows, int64_t d, float scale, Rows<const T> from, T* K, T* Q,
                        cudaStream_t stream);

// to (rows, 2 d) = scale times dK, beside dQ.
template <class T>
void join_keys_queries(int64_t rows, int64_t d, float scale, Rows<const T> dK, Rows<const T> dQ, T* to,
                       cudaStream_t stream);

}  // namespace hax::ops::cuda
