// Segments of sequences, for the SSD walk from the end (ssd_walk_backward.cu). Where the longest sequence
// takes longer to walk than a multiprocessor's share of all, sequences are cut into segments of at most such
// a share, which are walked side by side. The gradient of the state that leaves a segment is made of sums
// over each one behind it: what its rows add to the gradient of the state that enters it, and its whole
// decay.
//
// The host knows what there is room for, not the lengths. So there is a place for the first segment of each
// sequence and, behind those, there are `later` places for all others: segment k > 0 of a sequence that
// begins at row r has place r / rows + k - 1 of them. No other has it, and row (place + 1) * rows - 1 is of
// that sequence.
#pragma once

#include <cuda_bf16.h>

#include "lib/ops/cuda/ssd_plan.h"

namespace hax::ops::cuda {

struct SsdSegments {
  int64_t rows;   // of a segment but a sequence's last; whole chunks
  int64_t later;  // 0: every sequence is one segment

  __host__ __device__ int64_t places(const Layout& layout) const { return layout.batch + later; }
};

// plan: of the walk.
SsdSegments ssd_segments(const SsdPlan& plan);

// Blocks take segments in the order of this table, those of no rows last.
struct SsdSegment {
  int64_t begin, first_state;  // as WalkedRows has them
  int length;
  int behind;  // segments of the sequence behind this one
  int next;    // place of the first of those
  int place;   // its own, first segments of sequences included
};

// What is kept of the places of later segments.
struct SsdSegmentSums {
  SsdSegment* order;  // (places)
  float4* added;      // (later, H, N_tile / 8, 32 lanes), as StepStates carries them
  float* decays;      // (later, H)
};

void ssd_walk_segment_sums(const Layout& layout, const SsdShape& shape, const SsdSegments& segments,
                           const SsdInput<__nv_bfloat16>& in, Rows<const __nv_bfloat16> dy,
                           const SsdSegmentSums& sums, cudaStream_t stream);

}  // namespace hax::ops::cuda
