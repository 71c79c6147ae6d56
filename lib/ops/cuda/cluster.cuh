// Blocks of one cluster: they run at the same time and write each other's shared memory (sm_90 on).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "lib/ops/cuda/tiles.cuh"

namespace hax::ops::cuda {

// All threads of the cluster arrive; what they wrote before is seen by those that waited. No thread arrives
// again before it has waited.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Stores to the place in block `rank` that `place` is in this one.
__device__ __forceinline__ void store_in_block(int rank, float4* place, float4 value) {
  uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(shared_address(place)), "r"(rank));
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(value.x), "f"(value.y),
               "f"(value.z), "f"(value.w)
               : "memory");
}

// kernel<<<blocks, threads, bytes, stream>>>(arguments...) in clusters of these sizes.
template <class... Parameters, class... Arguments>
void launch_clusters(void (*kernel)(Parameters...), dim3 cluster, dim3 blocks, unsigned threads, size_t bytes,
                     cudaStream_t stream, const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  cudaLaunchAttribute size{};
  size.id = cudaLaunchAttributeClusterDimension;
  size.val.clusterDim.x = cluster.x;
  size.val.clusterDim.y = cluster.y;
  size.val.clusterDim.z = cluster.z;
  config.attrs = &size;
  config.numAttrs = 1;
  cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

}  // namespace hax::ops::cuda
