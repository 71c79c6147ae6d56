// The memsets of a captured graph, as kernels.
#pragma once

#include <cuda_runtime_api.h>

namespace hax::ops::cuda {

// Replaces every memset node of up to 4 KiB by a kernel node with the same edges, before the graph is
// instantiated: matrix products of cuBLAS set counters to zero in front of some of their kernels, and between
// two kernels a graph waits for a memset several times as long as for another kernel. Throws
// std::runtime_error naming the call that failed.
void replace_memsets(cudaGraph_t graph);

}  // namespace hax::ops::cuda
