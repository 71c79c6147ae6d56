// The selective scan on packed sequences (lib/ops/selective_scan.h), forward and backward, in parallel over
// chunks (lib/ops/cuda/chunk.cuh).
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

struct ScanShape {
  int64_t channels;  // d_inner
  int64_t N;         // 1 .. kScanLargestState
};

constexpr int64_t kScanLargestState = 32;

template <class T>
struct ScanInput {
  Rows<const T> u, delta;    // (rows, channels); delta before bias and softplus
  Rows<const T> B, C;        // (rows, N)
  const float* A;            // (channels, N)
  const float *D, *dt_bias;  // (channels)
};

// du and ddelta contiguous; by_channel: that of A (channels, N), and behind it of D and of dt_bias.
template <class T>
struct ScanGradient {
  T *du, *ddelta;
  Rows<T> dB, dC;
  float* by_channel;
};

// Floats of the states at the chunks' beginnings, which the backward pass reads.
int64_t scan_state_floats(const Layout& layout, const ScanShape& shape);

int64_t scan_forward_scratch_bytes(const Layout& layout, const ScanShape& shape);

// T: float or __nv_bfloat16. y (rows, channels) contiguous.
template <class T>
void scan_forward(const Layout& layout, const ScanShape& shape, const ScanInput<T>& in, T* y, float* states,
                  void* scratch, cudaStream_t stream);

int64_t scan_backward_scratch_bytes(const Layout& layout, const ScanShape& shape);

template <class T>
void scan_backward(const Layout& layout, const ScanShape& shape, const ScanInput<T>& in, const float* states,
                   Rows<const T> dy, const ScanGradient<T>& out, void* scratch, cudaStream_t stream);

}  // namespace hax::ops::cuda
