// Many small vectors cast, or summed in pairs, by one launch (of up to kPiecesMost of them).
#pragma once

#include <cuda_bf16.h>

#include <vector>

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

constexpr int kPiecesMost = 96;

struct CastPiece {
  int64_t n;
  const float* from;
  __nv_bfloat16* to;
};
void cast_pieces(const std::vector<CastPiece>& pieces, cudaStream_t stream);

// to <- a + b; a null one counts as 0.
struct SumPiece {
  int64_t n;
  float* to;
  const float* a;
  const __nv_bfloat16* b;
};
void sum_pieces(const std::vector<SumPiece>& pieces, cudaStream_t stream);

}  // namespace hax::ops::cuda
