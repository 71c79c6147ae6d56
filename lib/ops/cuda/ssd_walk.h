// The SSD scan of many short sequences in bf16: a block takes one sequence and some heads of a group and
// walks it in chunks of kWalkRows rows with the states on chip, so that no state is added up in global
// memory. Each chunk is cut into steps of 16 rows, one a warp; a step's entering state is kept for the
// backward pass, which walks from the end, long sequences in segments side by side (ssd_walk_segments.h).
#pragma once

#include "lib/ops/cuda/ssd_plan.h"

namespace hax::ops::cuda {

constexpr int kStepRows = 16;
constexpr int kSteps = 4;  // of a chunk
constexpr int kWalkRows = kSteps * kStepRows;

constexpr int kWalkHeads = 4;  // of a block in the backward pass, at most

// heads: at most so many of a block.
inline SsdPlan ssd_walk_plan(const Layout& layout, const SsdShape& shape, int heads) {
  return ssd_plan(layout, shape, 16 * heads);
}

// Whether sequences and heads, of which every pair is walked by four warps, fill a device, and the blocks of
// a group make a cluster, which the device has; decided from the shape alone, for a captured graph serves any
// lengths.
template <class T>
bool ssd_walks(const Layout& layout, const SsdShape& shape) {
  return sizeof(T) == 2 && shape.P <= 16 && shape.N <= 32 && layout.batch * shape.H >= 256 &&
         ssd_walk_plan(layout, shape, kWalkHeads).parts <= 8 && has_clusters();
}

// Places for the states that enter steps, each of all heads. Those of sequence b begin at place
// cu_seqlens[b] / kStepRows + b.
inline int64_t ssd_walk_slots(const Layout& layout) { return layout.rows / kStepRows + layout.batch; }

// Calls f with N_tile, 16 or 32, and whether P and N fill their tiles, as compile-time constants.
template <class F>
void with_walk_tiles(const SsdPlan& plan, const F& f) {
  const auto with_n = [&](auto N) {
    if (plan.P == 16 && plan.N == plan.N_tile)
      f(N, std::true_type());
    else
      f(N, std::false_type());
  };
  if (plan.N_tile == 16)
    with_n(std::integral_constant<int, 16>());
  else
    with_n(std::integral_constant<int, 32>());
}

void ssd_walk_forward(const Layout& layout, const SsdShape& shape, const SsdInput<__nv_bfloat16>& in,
                      __nv_bfloat16* y, __nv_bfloat16* states, cudaStream_t stream);

int64_t ssd_walk_backward_scratch_bytes(const Layout& layout, const SsdShape& shape);

void ssd_walk_backward(const Layout& layout, const SsdShape& shape, const SsdInput<__nv_bfloat16>& in,
                       const __nv_bfloat16* states, Rows<const __nv_bfloat16> dy,
                       const SsdGradient<__nv_bfloat16>& out, void* scratch, cudaStream_t stream);

}  // namespace hax::ops::cuda
