#include "lib/ops/cuda/hash_matrix.h"
#include "lib/ops/cuda/philox.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 64;

__device__ __forceinline__ double uniform(uint32_t high, uint32_t low) {
  const uint64_t bits = (static_cast<uint64_t>(high) << 32 | low) >> 12;
  return (static_cast<double>(bits) + 0.5) * 0x1p-52;
}

__global__ void normal_kernel(int64_t n, uint2 seed, uint32_t purpose_and_layer,
                              const int64_t* __restrict__ step, float* __restrict__ matrix) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const uint4 w =
      philox(make_uint4(static_cast<uint32_t>(i), 0u, static_cast<uint32_t>(*step), purpose_and_layer), seed);
  const double radius = sqrt(-2.0 * log(uniform(w.x, w.y)));
  matrix[i] = static_cast<float>(radius * cospi(2.0 * uniform(w.z, w.w)));
}

}  // namespace

void hash_matrix(int64_t n, uint64_t seed, uint32_t purpose_and_layer, const int64_t* step, float* matrix,
                 cudaStream_t stream) {
  normal_kernel<<<static_cast<unsigned>(ceil_div(n, kThreads)), kThreads, 0, stream>>>(
      n, make_uint2(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)), purpose_and_layer, step,
      matrix);
  check_launch("hash_matrix", "elements " + std::to_string(n));
}

}  // namespace hax::ops::cuda
