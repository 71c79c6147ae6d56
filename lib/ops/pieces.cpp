#include "lib/ops/pieces.h"

#include "lib/ops/cuda_paths.h"

namespace hax::ops {

std::vector<at::Tensor> cast_pieces(const std::vector<at::Tensor>& values, at::ScalarType dtype) {
  if (values.empty()) return {};
  const int64_t together = 16 / static_cast<int64_t>(at::elementSize(dtype));
  int64_t room = 0;
  for (const auto& value : values) room += (value.numel() + together - 1) / together * together;
  const at::Tensor buffer = at::empty({room}, values[0].options().dtype(dtype));
  std::vector<at::Tensor> casts;
  int64_t offset = 0;
  for (const auto& value : values) {
    casts.push_back(buffer.narrow(0, offset, value.numel()).view(value.sizes()));
    offset += (value.numel() + together - 1) / together * together;
  }
#ifdef HAX_CUDA
  if (has_pieces_cuda(values[0], dtype)) {
    cast_pieces_cuda(values, casts);
    return casts;
  }
#endif
  for (size_t i = 0; i < values.size(); ++i) casts[i].copy_(values[i]);
  return casts;
}

void sum_pieces(const std::vector<Piece>& pieces, const at::Tensor& flat) {
#ifdef HAX_CUDA
  if (has_pieces_cuda(flat, at::kBFloat16)) return sum_pieces_cuda(pieces, flat);
#endif
  for (const Piece& piece : pieces) {
    at::Tensor to = flat.narrow(0, piece.offset, piece.numel);
    if (piece.first.defined())
      to.copy_(piece.first.reshape({-1}));
    else
      to.zero_();
    if (piece.second.defined()) to.add_(piece.second.reshape({-1}));
  }
}

}  // namespace hax::ops
