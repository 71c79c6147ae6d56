// Many small tensors handled by one kernel each way: the parameters of a model, cast for a step, and their
// gradients, brought together.
#pragma once

#include <vector>

#include "lib/ops/torch.h"

namespace hax::ops {

// Contiguous casts of `values` to `dtype`, in one buffer, each beginning on 16 bytes.
std::vector<at::Tensor> cast_pieces(const std::vector<at::Tensor>& values, at::ScalarType dtype);

// Elements [offset, offset + numel) of a flat vector; either part may be undefined.
struct Piece {
  int64_t offset, numel;
  at::Tensor first;   // of the vector's dtype
  at::Tensor second;  // any float dtype
};
// flat <- first + second in every piece, 0 where both are undefined. Pieces cover the whole of `flat`.
void sum_pieces(const std::vector<Piece>& pieces, const at::Tensor& flat);

}  // namespace hax::ops
