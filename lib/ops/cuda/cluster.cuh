// Blocks of one cluster: they run at the same time and write each other's shared memory (sm_90 on:
// has_clusters in launch.h). Code for older devices is compiled, and never run.
//
// What one block stores in another is waited for by its bytes (Arrivals). A barrier of the whole cluster
// would also wait until all that the blocks have written to global memory is there, which takes longer.
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

// Bytes stored in a block by its cluster, counted in rounds; in shared memory. A round has ended when as many
// have come as one thread of the block expects, which it may say after the first of them have come.
struct Arrivals {
  uint64_t barrier;

  // By one thread; the blocks of the cluster store after a barrier of theirs.
  __device__ __forceinline__ void init() {
    HAX_CLUSTER_ASM("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&barrier)) : "memory");
    HAX_CLUSTER_ASM("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __device__ __forceinline__ void expect(int bytes) {
    HAX_CLUSTER_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
                    "r"(bytes)
                    : "memory");
  }
  // Until an even or odd round has ended; round 0 is the first. It is the current one or the one before.
  __device__ __forceinline__ void wait(int round) {
    uint32_t ended = 0;
    while (!ended) {
      HAX_CLUSTER_ASM(
          "{\n"
          ".reg .pred ended;\n"
          "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 ended, [%1], %2;\n"
          "selp.u32 %0, 1, 0, ended;\n"
          "}\n"
          : "=r"(ended)
          : "r"(shared_address(&barrier)), "r"(round & 1)
          : "memory");
    }
  }
};

// Stores to the place in block `rank` that `place` is in this one, and counts the bytes there.
__device__ __forceinline__ void store_in_block(int rank, float4* place, float4 value, Arrivals* arrivals) {
  [[maybe_unused]] uint32_t address = 0, count = 0;
  HAX_CLUSTER_ASM("mapa.shared::cluster.u32 %0, %1, %2;"
                  : "=r"(address)
                  : "r"(shared_address(place)), "r"(rank));
  HAX_CLUSTER_ASM("mapa.shared::cluster.u32 %0, %1, %2;"
                  : "=r"(count)
                  : "r"(shared_address(arrivals)), "r"(rank));
  HAX_CLUSTER_ASM(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
          address),
      "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(count)
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
