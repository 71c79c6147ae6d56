#include "lib/ops/cuda/pieces.h"

#include <type_traits>

#include "lib/ops/cuda_tensors.h"

namespace hax::ops {

namespace {

// Of fp32 and bf16 the one that T is not.
template <class T>
using Other = std::conditional_t<std::is_same_v<T, float>, __nv_bfloat16, float>;

}  // namespace

bool has_pieces_cuda(const at::Tensor& x) {
  return x.is_cuda() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

void cast_pieces_cuda(const std::vector<at::Tensor>& values, const CastPieces& to) {
  with_element_type(values[0], [&](auto element) {
    using From = decltype(element);
    using To = Other<From>;
    std::vector<cuda::CastPiece<From, To>> pieces;
    for (size_t i = 0; i < values.size(); ++i) {
      const at::Tensor& copy = to.copies[i];
      pieces.push_back({values[i].numel(), device_data<From>(values[i]), mutable_device_data<To>(to.casts[i]),
                        copy.defined() ? mutable_device_data<From>(copy) : nullptr});
    }
    cuda::cast_pieces(pieces, cuda_stream());
  });
}

void sum_pieces_cuda(const std::vector<Piece>& pieces, const at::Tensor& flat) {
  std::vector<at::Tensor> kept;  // until the kernels are launched
  const auto part = [&](const at::Tensor& x, at::ScalarType dtype) -> const void* {
    if (!x.defined()) return nullptr;
    kept.push_back(x.to(dtype).contiguous());
    return kept.back().const_data_ptr();
  };
  with_element_type(flat, [&](auto element) {
    using A = decltype(element);
    using B = Other<A>;
    const auto of_third = flat.scalar_type() == at::kFloat ? at::kBFloat16 : at::kFloat;
    std::vector<cuda::SumPiece<A, B>> sums;
    for (const Piece& piece : pieces) {
      sums.push_back({piece.numel, mutable_device_data<A>(flat) + piece.offset,
                      static_cast<const A*>(part(piece.first, flat.scalar_type())),
                      static_cast<const A*>(part(piece.second, flat.scalar_type())),
                      static_cast<const B*>(part(piece.third, of_third))});
    }
    cuda::sum_pieces(sums, cuda_stream());
  });
}

}  // namespace hax::ops
