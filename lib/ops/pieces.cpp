#include "lib/ops/pieces.h"

#include "lib/ops/cuda_paths.h"

namespace hax::ops {

namespace {

// Room for values of these sizes in one buffer.
std::vector<at::Tensor> room_for(const std::vector<at::Tensor>& values, at::ScalarType dtype) {
  const int64_t together = 16 / static_cast<int64_t>(at::elementSize(dtype));
  const auto rounded = [&](int64_t n) { return (n + together - 1) / together * together; };
  int64_t room = 0;
  for (const auto& value : values) room += rounded(value.numel());
  const at::Tensor buffer = at::empty({room}, values[0].options().dtype(dtype));
  std::vector<at::Tensor> pieces;
  int64_t offset = 0;
  for (const auto& value : values) {
    pieces.push_back(buffer.narrow(0, offset, value.numel()).view(value.sizes()));
    offset += rounded(value.numel());
  }
  return pieces;
}

}  // namespace

CastPieces cast_pieces(const std::vector<at::Tensor>& values, bool copies) {
  if (values.empty()) return {};
  const auto own = values[0].scalar_type(), other = own == at::kFloat ? at::kBFloat16 : at::kFloat;
  const CastPieces out{room_for(values, other),
                       copies ? room_for(values, own) : std::vector<at::Tensor>(values.size())};
#ifdef HAX_CUDA
  if (has_pieces_cuda(values[0])) {
    cast_pieces_cuda(values, out);
    return out;
  }
#endif
  for (size_t i = 0; i < values.size(); ++i) {
    out.casts[i].copy_(values[i]);
    if (copies) out.copies[i].copy_(values[i]);
  }
  return out;
}

void sum_pieces(const std::vector<Piece>& pieces, const at::Tensor& flat) {
#ifdef HAX_CUDA
  if (has_pieces_cuda(flat)) return sum_pieces_cuda(pieces, flat);
#endif
  for (const Piece& piece : pieces) {
    at::Tensor to = flat.narrow(0, piece.offset, piece.numel);
    at::Tensor sum =
        at::zeros({piece.numel}, flat.options().dtype(at::promote_types(flat.scalar_type(), at::kFloat)));
    for (const at::Tensor& part : {piece.first, piece.second, piece.third}) {
      if (part.defined()) sum.add_(part.reshape({-1}));
    }
    to.copy_(sum);
  }
}

}  // namespace hax::ops
