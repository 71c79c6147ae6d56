// The SSD scan on packed sequences (lib/ops/ssd.h), forward and backward: in parallel over chunks
// (lib/ops/cuda/chunk.cuh), or over sequences and heads where those fill the device (ssd_walk.h).
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

// In the shapes of the inputs: rows of dx, dB and dC begin at a multiple of two elements, ddt is contiguous;
// those of A, D and dt_bias are the rows of by_head (3, H).
template <class T>
struct SsdGradient {
  Rows<T> dx, dB, dC;
  T* ddt;
  float* by_head;
};

// Elements of the states that the forward pass keeps for the backward pass.
template <class T>
int64_t ssd_state_elements(const Layout& layout, const SsdShape& shape);

template <class T>
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
