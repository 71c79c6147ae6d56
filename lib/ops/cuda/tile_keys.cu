// Key sets as the attention kernels read them: a block a sequence.
#include "lib/ops/cuda/sparse_attention.h"

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr uint32_t kForever = 0x7fffffffu;

// Are there queries without any key? A window, a sink, the top-k and full attention always have one.
bool may_be_empty(const Memberships& m) {
  return !m.full && m.window <= 0 && m.sink <= 0 && m.evicted == nullptr;
}

__device__ __forceinline__ uint32_t life_of(const Memberships& m, int64_t row, int64_t j) {
  int64_t longest = 0;
  if (m.window > 0) longest = m.window;
  if (m.evicted) longest = max(longest, m.evicted[row] - j);
  if (m.full || j < m.sink || (m.dilation > 0 && j % m.dilation == m.dilation - 1)) longest = kForever;
  return static_cast<uint32_t>(min(longest, static_cast<int64_t>(kForever)));
}

__global__ void __launch_bounds__(kThreads)
    tile_keys_kernel(Layout layout, Memberships m, int shift, bool may_be_empty, uint32_t* __restrict__ life,
                     uint32_t* __restrict__ key_code, uint32_t* __restrict__ query_code,
                     uint32_t* __restrict__ empty, int32_t* __restrict__ order) {
  constexpr int kWarps = kThreads / 32;
  static_assert(kWarps == 32, "a lane a warp's count");
  __shared__ int counts[2][kWarps];
  const int64_t begin = layout.cu_seqlens[blockIdx.x];
  const int n = static_cast<int>(layout.cu_seqlens[blockIdx.x + 1] - begin);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint64_t kept = 0;  // bit r: does the thread's key of round r live? Those of later rounds are read again
  int living = 0;
#pragma unroll 2
  for (int first = 0; first < n; first += kThreads) {
    const int j = first + static_cast<int>(threadIdx.x);
    const int64_t t = begin + j;
    bool lives = false;
    if (j < n) {
      const uint32_t own = life_of(m, t, j);
      lives = own > 0;
      life[t] = own;
      bool none = may_be_empty && !(m.dilation > 0 && j >= m.dilation - 1);
      if (m.query_bin) {
        const int64_t count = m.count[t];
        none = none && count == 0;
        key_code[t] = (static_cast<uint32_t>(m.key_bin[t] + 1) << shift) + static_cast<uint32_t>(m.rank[t]);
        query_code[t] =
            (static_cast<uint32_t>(m.query_bin[t] + 1) << shift) + static_cast<uint32_t>(count - m.lsh_width);
      }
      empty[t] = none;
    }
    if (first / kThreads < 64) kept |= static_cast<uint64_t>(lives) << (first / kThreads);
    living += lives;
  }
  living = __reduce_add_sync(0xffffffffu, living);
  if (lane == 0) counts[1][warp] = living;
  __syncthreads();
  living = __reduce_add_sync(0xffffffffu, counts[1][lane]);
  int placed = 0;  // living keys before `first`
  for (int first = 0; first < n; first += kThreads) {
    const int j = first + static_cast<int>(threadIdx.x), round = first / kThreads;
    const bool lives = round < 64 ? kept >> round & 1 : j < n && life[begin + j] > 0;
    const uint32_t held = __ballot_sync(0xffffffffu, lives);
    if (lane == 0) counts[round % 2][warp] = __popc(held);
    __syncthreads();
    const int others = counts[round % 2][lane];
    const int before =
        placed + __reduce_add_sync(0xffffffffu, lane < warp ? others : 0) + __popc(held & ((1u << lane) - 1));
    if (j < n) order[begin + (lives ? before : living + j - before)] = j;
    placed += __reduce_add_sync(0xffffffffu, others);
  }
}

}  // namespace

int lsh_code_shift(int64_t bins, int64_t width, int64_t max_seqlen) {
  int shift = 1;
  while ((int64_t{1} << shift) <= max_seqlen + width) ++shift;
  return (bins + 2) << shift <= int64_t{1} << 32 ? shift : -1;
}

TileKeys tile_keys(const Layout& layout, const Memberships& memberships, bool uniform_empty,
                   int64_t padded_length, uint32_t* words, cudaStream_t stream) {
  const bool lsh = memberships.query_bin != nullptr;
  const int shift = lsh ? lsh_code_shift(memberships.lsh_bins, memberships.lsh_width, layout.max_seqlen) : 0;
  uint32_t *life = words, *empty = life + layout.rows, *key_code = empty + 2 * layout.rows,
           *query_code = key_code + layout.rows;
  auto* order = reinterpret_cast<int32_t*>(empty + layout.rows);
  const bool empty_rows = may_be_empty(memberships);
  tile_keys_kernel<<<static_cast<unsigned>(layout.batch), kThreads, 0, stream>>>(
      layout, memberships, shift, empty_rows, life, key_code, query_code, empty, order);
  check_launch("tile_keys", "rows " + std::to_string(layout.rows));
  return {life,
          lsh ? key_code : nullptr,
          lsh ? query_code : nullptr,
          empty,
          order,
          lsh ? static_cast<uint32_t>(memberships.lsh_width) : 0u,
          shift,
          uniform_empty && empty_rows,
          padded_length};
}

}  // namespace hax::ops::cuda
