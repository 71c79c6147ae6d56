// Blocks of one cluster: they run at the same time and write each other's shared memory (sm_90 on:
// has_clusters in launch.h). Code for older devices is compiled, and never run.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "lib/ops/cuda/tiles.cuh"

namespace hax::ops::cuda {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define HAX_CLUSTER_ASM(...) asm volatile(__VA_ARGS__)
#else
#define HAX_CLUSTER_ASM(...) __trap()
#endif

// All threads of the cluster arrive; what they wrote before is seen by those that waited. No thread arrives
// again before it has waited.
__device__ __forceinline__ void cluster_arrive() {
  HAX_CLUSTER_ASM("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  HAX_CLUSTER_ASM("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Stores to the place in block `rank` that `place` is in this one.
__device__ __forceinline__ void store_in_block(int rank, float4* place, float4 value) {
  [[maybe_unused]] uint32_t address = 0;
  HAX_CLUSTER_ASM("mapa.shared::cluster.u32 %0, %1, %2;"
                  : "=r"(address)
                  : "r"(shared_address(place)), "r"(rank));
  HAX_CLUSTER_ASM("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(value.x),
                  "f"(value.y), "f"(value.z), "f"(value.w)
                  : "memory");
}

#undef HAX_CLUSTER_ASM

// kernel<<<blocks, threads, bytes, stream>>>(arguments...) in clusters of `size` blocks.
template <class... Parameters, class... Arguments>
void launch_clusters(void (*kernel)(Parameters...), int size, unsigned blocks, unsigned threads, size_t bytes,
                     cudaStream_t stream, const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = static_cast<unsigned>(size);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = 1;
  cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

}  // namespace hax::ops::cuda
