// Many small vectors cast, or summed, by one launch (of up to kPiecesMost of them).
#pragma once

#include <cuda_bf16.h>

#include <vector>

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

constexpr int kPiecesMost = 96;

// Of the types below one is float, the other __nv_bfloat16.

template <class From, class To>
struct CastPiece {
  int64_t n;
  const From* from;
  To* to;
  From* copy;  // null: none
};
template <class From, class To>
void cast_pieces(const std::vector<CastPiece<From, To>>& pieces, cudaStream_t stream);

// to <- a + b + c, added in fp32; a null one counts as 0.
template <class A, class B>
struct SumPiece {
  int64_t n;
  A* to;
  const A *a, *b;
  const B* c;
};
template <class A, class B>
void sum_pieces(const std::vector<SumPiece<A, B>>& pieces, cudaStream_t stream);

}  // namespace hax::ops::cuda
