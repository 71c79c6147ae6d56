// A block's y names the piece, its x the part of it; blocks beyond a piece's end leave at once. The table of
// pieces travels as a kernel parameter, so a captured graph holds it.
#include "lib/ops/cuda/pieces.h"

#include <algorithm>

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 256, kEach = 4;  // elements of a thread, kThreads apart

template <class Piece>
struct Table {
  Piece pieces[kPiecesMost];
};

__device__ __forceinline__ void apply(const CastPiece& p, int64_t i) {
  p.to[i] = __float2bfloat16(p.from[i]);
}
__device__ __forceinline__ void apply(const SumPiece& p, int64_t i) {
  const float a = p.a ? p.a[i] : 0.0f, b = p.b ? __bfloat162float(p.b[i]) : 0.0f;
  p.to[i] = a + b;
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

void cast_pieces(const std::vector<CastPiece>& pieces, cudaStream_t stream) {
  launch("cast_pieces", pieces, stream);
}
void sum_pieces(const std::vector<SumPiece>& pieces, cudaStream_t stream) {
  launch("sum_pieces", pieces, stream);
}

}  // namespace hax::ops::cuda
