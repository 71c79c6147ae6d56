// A block's y names the piece, its x the part of it; blocks beyond a piece's end leave at once. The table of
// pieces travels as a kernel parameter, so a captured graph holds it.
#include "lib/ops/cuda/pieces.h"

#include <algorithm>

#include "lib/ops/cuda/convert.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 256, kEach = 4;  // elements of a thread, kThreads apart

template <class Piece>
struct Table {
  Piece pieces[kPiecesMost];
};

template <class From, class To>
__device__ __forceinline__ void apply(const CastPiece<From, To>& p, int64_t i) {
  p.to[i] = from_float<To>(to_float(p.from[i]));
  if (p.copy) p.copy[i] = p.from[i];
}
template <class A, class B>
__device__ __forceinline__ void apply(const SumPiece<A, B>& p, int64_t i) {
  const float a = p.a ? to_float(p.a[i]) : 0.0f, b = p.b ? to_float(p.b[i]) : 0.0f,
              c = p.c ? to_float(p.c[i]) : 0.0f;
  p.to[i] = from_float<A>(a + b + c);
}

template <class Piece>
__global__ void __launch_bounds__(kThreads) pieces_kernel(const __grid_constant__ Table<Piece> table) {
  const Piece p = table.pieces[blockIdx.y];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kEach + threadIdx.x;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const int64_t i = first + k * kThreads;
    if (i < p.n) apply(p, i);
  }
}

template <class Piece>
void launch(const char* name, const std::vector<Piece>& all, cudaStream_t stream) {
  for (size_t begin = 0; begin < all.size(); begin += kPiecesMost) {
    const size_t count = std::min<size_t>(kPiecesMost, all.size() - begin);
    Table<Piece> table{};
    int64_t longest = 1;
    for (size_t i = 0; i < count; ++i) {
      table.pieces[i] = all[begin + i];
      longest = std::max(longest, all[begin + i].n);
    }
    const dim3 grid(static_cast<unsigned>(ceil_div(longest, kThreads * kEach)), static_cast<unsigned>(count));
    pieces_kernel<<<grid, kThreads, 0, stream>>>(table);
    check_launch(name, std::to_string(count) + " pieces, the longest of " + std::to_string(longest));
  }
}

}  // namespace

template <class From, class To>
void cast_pieces(const std::vector<CastPiece<From, To>>& pieces, cudaStream_t stream) {
  launch("cast_pieces", pieces, stream);
}
template <class A, class B>
void sum_pieces(const std::vector<SumPiece<A, B>>& pieces, cudaStream_t stream) {
  launch("sum_pieces", pieces, stream);
}

#define HAX_INSTANTIATE(A, B)                                                         \
  template void cast_pieces<A, B>(const std::vector<CastPiece<A, B>>&, cudaStream_t); \
  template void sum_pieces<A, B>(const std::vector<SumPiece<A, B>>&, cudaStream_t);
HAX_INSTANTIATE(float, __nv_bfloat16)
HAX_INSTANTIATE(__nv_bfloat16, float)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
