// Rows of an embedding matrix by token, and the gradient of the matrix. T: float or __nv_bfloat16.
#pragma once

#include <cuda_bf16.h>

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// out (rows, d) = weight (vocab, d) at tokens (rows); zeros in rows that are not in use.
template <class T>
void embedding_forward(const Layout& layout, int64_t d, const T* weight, const int64_t* tokens, T* out,
                       cudaStream_t stream);

// dweight (vocab, d): for each token the sum of dout's rows that hold it, in fp32 and a fixed order; what is
// not finite in dout may spoil other tokens' numbers of its column. scratch: embedding_scratch_bytes(...)
// bytes.
int64_t embedding_scratch_bytes(const Layout& layout, int64_t vocab, int64_t d);
template <class T>
void embedding_backward(const Layout& layout, int64_t vocab, int64_t d, const int64_t* tokens, const T* dout,
                        T* dweight, void* scratch, cudaStream_t stream);

}  // namespace hax::ops::cuda
