// What the CUDA kernels share: checked launches, and how packed sequences are handed over. Free of torch: raw
// device pointers, sizes, a stream.
//
// Kernels never synchronise, allocate, or read device memory on the host, so each may be captured in a graph.
// A layout has room for `rows` rows; the first cu_seqlens[batch] of them are in use. Kernels read nothing
// from the rows behind those and write zeros there.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace hax::ops::cuda {

struct Layout {
  const int64_t* cu_seqlens;  // (batch + 1)
  const int64_t* seq_id;      // (rows)
  const int64_t* position;    // (rows), inside its sequence
  int64_t batch;
  int64_t rows;
  int64_t max_seqlen;  // no sequence is longer
};

// Rows of a matrix: row t begins at data + t * stride (in elements).
template <class T>
struct Rows {
  T* data;
  int64_t stride;
};

// Throws std::runtime_error naming the kernel and its shape when a launch was refused.
inline void check_launch(const char* kernel, const std::string& shape) {
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA kernel ") + kernel + " (" + shape +
                             "): " + cudaGetErrorString(status));
  }
}

// Whether the current device runs clusters of blocks (lib/ops/cuda/cluster.cuh).
inline bool has_clusters() {
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  return major >= 9;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace hax::ops::cuda
