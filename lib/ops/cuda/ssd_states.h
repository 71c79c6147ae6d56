// States of the SSD scan at its chunks' borders by walking each sequence, in bf16 (the other way, sums by
// chunk that are carried afterwards, is ssd_chunk.cuh's).
#pragma once

#include <cuda_bf16.h>

#include "lib/ops/cuda/ssd_plan.h"

namespace hax::ops::cuda {

// Whether the walks are enough to fill a device; decided from the shape alone.
bool ssd_walks_states(const SsdPlan& plan);

// values: x (forward) or dy (backward). states (chunks, H, P_tile, N_tile): what enters each chunk, or the
// gradient of what leaves it; those of chunks that no state enters (leaves) are not written.
template <SsdDirection D>
void ssd_walk_states(const SsdPlan& plan, const SsdInput<__nv_bfloat16>& in, Rows<const __nv_bfloat16> values,
                     __nv_bfloat16* states, cudaStream_t stream);

}  // namespace hax::ops::cuda
