// The random hash matrix of a training step, drawn on the device: the numbers of RandomStream::normal
// (lib/base/random.h) on stream (seed, purpose, layer, step).
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// matrix (n) i.i.d. N(0, 1), element i from words 4 i .. 4 i + 3 of the stream; *step lies on the device.
void hash_matrix(int64_t n, uint64_t seed, uint32_t purpose_and_layer, const int64_t* step, float* matrix,
                 cudaStream_t stream);

}  // namespace hax::ops::cuda
