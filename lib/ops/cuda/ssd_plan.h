// How the SSD kernels cut their work. A block takes a chunk and some heads of one group; P and N are filled
// up with zeros to P_tile and N_tile.
#pragma once

#include "lib/ops/cuda/chunk.cuh"
#include "lib/ops/cuda/ssd.h"

namespace hax::ops::cuda {

enum class SsdDirection { forward, backward };

struct SsdPlan {
  Layout layout;
  int H, P, G, N;
  int P_tile;  // 16, 32 or 64
  int N_tile;  // a multiple of 16
  int heads;   // of a block
  int parts;   // blocks that share a group
  int64_t chunks;

  __host__ __device__ int64_t state_size() const { return static_cast<int64_t>(P_tile) * N_tile; }
  dim3 grid() const { return {static_cast<unsigned>(chunks), static_cast<unsigned>(H / heads)}; }
  std::string text() const {
    return "rows " + std::to_string(layout.rows) + ", H " + std::to_string(H) + ", P " + std::to_string(P) +
           ", G " + std::to_string(G) + ", N " + std::to_string(N);
  }
};

// `columns`: how many columns of x a block keeps in shared memory.
inline SsdPlan ssd_plan(const Layout& layout, const SsdShape& shape, int columns) {
  if (!ssd_fits(shape)) {
    throw std::invalid_argument("ssd: P " + std::to_string(shape.P) + ", N " + std::to_string(shape.N) +
                                " have no kernel");
  }
  SsdPlan plan{layout, static_cast<int>(shape.H), static_cast<int>(shape.P), static_cast<int>(shape.G),
               static_cast<int>(shape.N)};
  plan.P_tile = plan.P <= 16 ? 16 : plan.P <= 32 ? 32 : 64;
  plan.N_tile = (plan.N + 15) / 16 * 16;
  const int in_group = plan.H / plan.G;
  for (int heads = 1; heads <= in_group && heads * plan.P_tile <= columns; ++heads) {
    if (in_group % heads == 0) plan.heads = heads;
  }
  plan.parts = in_group / plan.heads;
  plan.chunks = chunks_of(layout);
  return plan;
}

template <class T>
SsdPlan ssd_plan_of(const Layout& layout, const SsdShape& shape) {
  return ssd_plan(layout, shape, sizeof(T) == 2 ? 128 : 64);
}

// Calls f with P_tile as a compile-time constant.
template <class F>
void with_p_tile(const SsdPlan& plan, const F& f) {
  if (plan.P_tile == 16)
    f(std::integral_constant<int, 16>());
  else if (plan.P_tile == 32)
    f(std::integral_constant<int, 32>());
  else
    f(std::integral_constant<int, 64>());
}

template <class Kernel>
void allow_shared_memory(Kernel kernel, int64_t bytes) {
  if (bytes > 48 * 1024) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  }
}

}  // namespace hax::ops::cuda
