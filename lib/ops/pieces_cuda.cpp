#include "lib/ops/cuda/pieces.h"

#include "lib/ops/cuda_tensors.h"

namespace hax::ops {

bool has_pieces_cuda(const at::Tensor& x, at::ScalarType other) {
  return x.is_cuda() && x.scalar_type() == at::kFloat && other == at::kBFloat16;
}

void cast_pieces_cuda(const std::vector<at::Tensor>& values, const std::vector<at::Tensor>& casts) {
  std::vector<cuda::CastPiece> pieces;
  for (size_t i = 0; i < values.size(); ++i) {
    pieces.push_back(
        {values[i].numel(), device_data<float>(values[i]), mutable_device_data<__nv_bfloat16>(casts[i])});
  }
  cuda::cast_pieces(pieces, cuda_stream());
}

void sum_pieces_cuda(const std::vector<Piece>& pieces, const at::Tensor& flat) {
  std::vector<at::Tensor> kept;  // until the kernels are launched
  const auto part = [&](const at::Tensor& x, at::ScalarType dtype) -> const void* {
    if (!x.defined()) return nullptr;
    kept.push_back(x.to(dtype).contiguous());
    return kept.back().const_data_ptr();
  };
  std::vector<cuda::SumPiece> sums;
  for (const Piece& piece : pieces) {
    sums.push_back({piece.numel, mutable_device_data<float>(flat) + piece.offset,
                    static_cast<const float*>(part(piece.first, at::kFloat)),
                    static_cast<const __nv_bfloat16*>(part(piece.second, at::kBFloat16))});
  }
  cuda::sum_pieces(sums, cuda_stream());
}

}  // namespace hax::ops
