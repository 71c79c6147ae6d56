// Many small tensors handled by one kernel each way: the parameters of a model, cast for a step, and their
// gradients, brought together.
#pragma once

#include <vector>

#include "lib/ops/torch.h"

namespace hax::ops {

// Of `values`, all fp32 or all bf16: contiguous casts to the other of the two, and, where they are asked for,
// copies; each of them begins on 16 bytes, as matrix products like it.
struct CastPieces {
  std::vector<at::Tensor> casts, copies;  // copies: undefined where they were not asked for
};
CastPieces cast_pieces(const std::vector<at::Tensor>& values, bool copies);

// Elements [offset, offset + numel) of a flat vector; parts may be undefined.
struct Piece {
  int64_t offset, numel;
  at::Tensor first, second;  // of the vector's dtype
  at::Tensor third;          // fp32 or bf16
};
// flat <- the sum of the parts of every piece, 0 where there is none. Pieces cover the whole of `flat`.
void sum_pieces(const std::vector<Piece>& pieces, const at::Tensor& flat);

}  // namespace hax::ops
