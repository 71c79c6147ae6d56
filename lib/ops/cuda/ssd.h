// The SSD scan on packed sequences (lib/ops/ssd.h), forward and backward, in parallel over chunks
// (lib/ops/cuda/chunk.cuh).
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

struct SsdShape {
  int64_t H, P, G, N;
};

// Whether the kernels take this shape: P up to 64, N up to 128.
bool ssd_fits(const SsdShape& shape);

template <class T>
struct SsdInput {
  Rows<const T> x;               // (rows, H * P)
  Rows<const T> dt;              // (rows, H), before bias and softplus
  Rows<const T> B;               // (rows, G * N)
  Rows<const T> C;               // (rows, G * N)
  const float *A, *D, *dt_bias;  // (H)
};

// All contiguous, in the shapes of the inputs.
template <class T>
struct SsdGradient {
  T *dx, *ddt, *dB, *dC;
  float *dA, *dD, *ddt_bias;
};

// Elements (of T) of the states at the chunks' beginnings, which the backward pass reads.
int64_t ssd_state_elements(const Layout& layout, const SsdShape& shape);

int64_t ssd_forward_scratch_bytes(const Layout& layout, const SsdShape& shape);

// T: float or __nv_bfloat16. y (rows, H, P).
template <class T>
void ssd_forward(const Layout& layout, const SsdShape& shape, const SsdInput<T>& in, T* y, T* states,
                 void* scratch, cudaStream_t stream);

template <class T>
int64_t ssd_backward_scratch_bytes(const Layout& layout, const SsdShape& shape);

template <class T>
void ssd_backward(const Layout& layout, const SsdShape& shape, const SsdInput<T>& in, const T* states,
                  Rows<const T> dy, const SsdGradient<T>& out, void* scratch, cudaStream_t stream);

}  // namespace hax::ops::cuda
