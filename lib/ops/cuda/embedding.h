// Rows of an embedding matrix by token, and the gradient of the matrix.
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// out (rows, d) = weight (vocab, d) at tokens (rows); zeros in rows that are not in use.
void embedding_forward(const Layout& layout, int64_t d, const float* weight, const int64_t* tokens,
                       float* out, cudaStream_t stream);

// dweight (vocab, d): for each token the sum of dout's rows that hold it, in a fixed order. scratch:
// embedding_scratch_bytes(...) bytes.
int64_t embedding_scratch_bytes(const Layout& layout, int64_t vocab, int64_t d);
void embedding_backward(const Layout& layout, int64_t vocab, int64_t d, const int64_t* tokens,
                        const float* dout, float* dweight, void* scratch, cudaStream_t stream);

}  // namespace hax::ops::cuda
