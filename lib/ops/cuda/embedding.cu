// Backward, small matrices: dweight = A^T dout on tensor cores, where A (rows, vocab) has a one at each row's
// token, and dout in fp32 is the sum of three numbers in bf16, which has all its bits. Blocks leave one
// partial sum each. Large ones: a block a token id. It looks through all tokens kThreads at a time, lists the
// rows that hold its id in shared memory, and adds them up: thread (g, f) takes feature f of every kGroups-th
// row of the list, and the groups are added in order at the end.
#include "lib/ops/cuda/embedding.h"

#include <algorithm>

#include "lib/ops/cuda/column_sums.cuh"
#include "lib/ops/cuda/tiles.cuh"
#include "lib/ops/cuda/vectors.cuh"

namespace hax::ops::cuda {
namespace {

constexpr int kThreads = 256;

// A block copies kForwardRows rows, V features at once; `vectors` = d / V.
constexpr int kForwardRows = 64;
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Layout layout, int vectors, const T* __restrict__ weight,
                   const int64_t* __restrict__ tokens, T* __restrict__ out) {
  using Vector = Packed<T, V>;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kForwardRows;
  const int64_t used = layout.cu_seqlens[layout.batch];
  const auto* from = reinterpret_cast<const Vector*>(weight);
  auto* to = reinterpret_cast<Vector*>(out) + first * vectors;
  const int n = static_cast<int>(min(int64_t{kForwardRows}, layout.rows - first)) * vectors;
#pragma unroll 4
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const int64_t row = first + i / vectors;
    Vector value = {};
    if (row < used) value = from[tokens[row] * vectors + i % vectors];
    to[i] = value;
  }
}

// Features [blockIdx.y * width, ...) of id blockIdx.x; width * groups <= kThreads.
template <class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Layout layout, int d, int width, int groups, const int64_t* __restrict__ tokens,
                    const T* __restrict__ dout, T* __restrict__ dweight) {
  __shared__ int64_t list[kThreads];
  __shared__ int before[kThreads / 32 + 1];
  __shared__ float sums[kThreads];
  const int64_t used = layout.cu_seqlens[layout.batch];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int f = threadIdx.x % width, g = threadIdx.x / width, column = blockIdx.y * width + f;
  const bool adds = g < groups && column < d;
  float sum = 0.0f;
  for (int64_t first = 0; first < used; first += kThreads) {
    const int64_t row = first + threadIdx.x;
    const bool mine = row < used && tokens[row] == blockIdx.x;
    const uint32_t found = __ballot_sync(0xffffffffu, mine);
    if (!__syncthreads_or(found != 0)) continue;
    if (lane == 0) before[warp + 1] = __popc(found);
    if (threadIdx.x == 0) before[0] = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int w = 0; w < kThreads / 32; ++w) before[w + 1] += before[w];
    }
    __syncthreads();
    if (mine) list[before[warp] + __popc(found & ((1u << lane) - 1))] = row;
    const int n = before[kThreads / 32];
    __syncthreads();
    if (adds) {
      for (int i = g; i < n; i += groups) sum += to_float(dout[list[i] * d + column]);
    }
    __syncthreads();
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (g != 0 || column >= d) return;
  float total = 0.0f;
  for (int k = 0; k < groups; ++k) total += sums[k * width + f];
  dweight[static_cast<int64_t>(blockIdx.x) * d + column] = from_float<T>(total);
}

// ---- by products

constexpr int kIds = 128, kColumns = 64;       // of a block's tile of the gradient
constexpr int kRows = 128, kMostBlocks = 264;  // rows at a time; blocks that share them
constexpr int64_t kProductsMost = 32768;       // elements of the matrix

// What rounding to bf16 takes away from two numbers.
__device__ __forceinline__ uint32_t split(float& x, float& y) {
  const uint32_t pair = pack(x, y);
  x -= __uint_as_float(pair << 16);
  y -= __uint_as_float(pair & 0xffff0000u);
  return pair;
}

// Rows of a block in shared memory; the pitch keeps the reads below apart.
struct Stage {
  float dout[kRows][kColumns + 8];
  int id[kRows];  // -1 behind the rows in use
};

// Adds 16 rows of a stage to sums[m][n], of ids `id` + 16 m + g (and + 8) and columns of product n, where g =
// lane / 4. Product n takes the n-th of four columns of each g; t = lane % 4 has rows t, t + 4, ...: their
// order is the same in both operands. kParts: numbers of bf16 that make one of dout.
template <int kParts>
__device__ __forceinline__ void add_rows(float (&sums)[4][4][4], const Stage& stage, int row, int column,
                                         int t, int id, int ids) {
  uint32_t b[kParts][4][2];
  float x[4][4];
  int own[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    own[r] = stage.id[row + t + 4 * r] - id;
    load_vector<4>(x[r], &stage.dout[row + t + 4 * r][column]);
  }
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      b[part][n][0] = split(x[0][n], x[1][n]);
      b[part][n][1] = split(x[2][n], x[3][n]);
    }
  }
  const auto one = [&](int r, int at) { return own[r] == at ? 0x3f80u : 0u; };
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    if (16 * m >= ids) break;
    uint32_t a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = i / 2 * 2, at = 16 * m + i % 2 * 8;
      a[i] = one(r, at) | one(r + 1, at) << 16;
    }
#pragma unroll
    for (int part = kParts - 1; part >= 0; --part) {
#pragma unroll
      for (int n = 0; n < 4; ++n) mma(sums[m][n], a, b[part][n][0], b[part][n][1]);
    }
  }
}

// parts (blocks, vocab, d). Warps (half of the ids, half of the columns, half of the rows); the tiles of the
// two halves of rows are added through shared memory.
template <class T>
__global__ void __launch_bounds__(kThreads, 2)
    products_kernel(Layout layout, int d, int vocab, bool fours, const int64_t* __restrict__ tokens,
                    const T* __restrict__ dout, float* __restrict__ parts) {
  union Shared {
    Stage stage;
    float table[kIds][kColumns + 4];
  };
  __shared__ __align__(16) Shared shared;
  Stage& stage = shared.stage;
  const int64_t used = layout.cu_seqlens[layout.batch];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int g = lane / 4, t = lane % 4, half = warp / 4;
  const int own_id = warp % 2 * (kIds / 2), own_columns = warp / 2 % 2 * (kColumns / 2);
  const int first_id = static_cast<int>(blockIdx.z) * kIds;
  const int first_column = static_cast<int>(blockIdx.y) * kColumns;
  float sums[4][4][4] = {};
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRows; first < used;
       first += static_cast<int64_t>(gridDim.x) * kRows) {
    constexpr int kFours = kRows * kColumns / 4 / kThreads;
    Packed<T, 4> coming[kFours];
    int id = -1;
    if (thread < kRows && first + thread < used) id = static_cast<int>(tokens[first + thread]);
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int row = (thread + i * kThreads) / (kColumns / 4);
      const int column = first_column + thread % (kColumns / 4) * 4;
      const T* from = dout + (first + row) * d + column;
      coming[i] = {};
      if (first + row >= used) continue;
      if (fours) {
        if (column < d) coming[i] = load_packed<4>(from);
      } else {
        float each[4] = {};
        for (int n = 0; n < 4 && column + n < d; ++n) each[n] = to_float(from[n]);
        coming[i].set(each);
      }
    }
    __syncthreads();  // the stage before is read
    if (thread < kRows) stage.id[thread] = id;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      float each[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) each[n] = coming[i].get(n);
      store_vector<4>(&stage.dout[(thread + i * kThreads) / (kColumns / 4)][thread % (kColumns / 4) * 4],
                      each);
    }
    __syncthreads();
#pragma unroll 1
    for (int row = half * (kRows / 2); row < (half + 1) * (kRows / 2); row += 16)
      add_rows<sizeof(T) == 2 ? 1 : 3>(sums, stage, row, own_columns + 4 * g, t, first_id + own_id + g,
                                       vocab - first_id - own_id);
  }
#pragma unroll
  for (int turn = 0; turn < 2; ++turn) {
    __syncthreads();
    if (half != turn) continue;
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float* to = &shared.table[own_id + 16 * m + g + e / 2 * 8][own_columns + 4 * (2 * t + e % 2)];
        float x[4] = {};
        if (turn == 1) load_vector<4>(x, to);
#pragma unroll
        for (int n = 0; n < 4; ++n) x[n] += sums[m][n][e];
        store_vector<4>(to, x);
      }
    }
  }
  __syncthreads();
  float* part = parts + static_cast<int64_t>(blockIdx.x) * vocab * d;
  const int ids = min(kIds, vocab - first_id), columns = min(kColumns, d - first_column);
#pragma unroll 4
  for (int i = thread; i < ids * kColumns; i += kThreads) {
    if (i % kColumns < columns)
      part[(first_id + i / kColumns) * d + first_column + i % kColumns] =
          shared.table[i / kColumns][i % kColumns];
  }
}

// Four features at once where every row begins at a multiple of them.
template <class T>
bool in_fours(int64_t d, const T* rows) {
  return d % 4 == 0 && reinterpret_cast<uintptr_t>(rows) % (4 * sizeof(T)) == 0;
}

bool fits_products(int64_t vocab, int64_t d) { return vocab * d <= kProductsMost; }

unsigned product_blocks(const Layout& layout) {
  return static_cast<unsigned>(std::min<int64_t>(ceil_div(layout.rows, kRows), kMostBlocks));
}

}  // namespace

int64_t embedding_scratch_bytes(const Layout& layout, int64_t vocab, int64_t d) {
  return fits_products(vocab, d) ? product_blocks(layout) * vocab * d * static_cast<int64_t>(sizeof(float))
                                 : 0;
}

template <class T>
void embedding_forward(const Layout& layout, int64_t d, const T* weight, const int64_t* tokens, T* out,
                       cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(ceil_div(layout.rows, kForwardRows));
  const bool fours = in_fours(d, weight) && in_fours(d, out);
  const auto kernel = fours ? forward_kernel<T, 4> : forward_kernel<T, 1>;
  kernel<<<blocks, kThreads, 0, stream>>>(layout, static_cast<int>(fours ? d / 4 : d), weight, tokens, out);
  check_launch("embedding_forward", "rows " + std::to_string(layout.rows) + ", d " + std::to_string(d));
}

template <class T>
void embedding_backward(const Layout& layout, int64_t vocab, int64_t d, const int64_t* tokens, const T* dout,
                        T* dweight, void* scratch, cudaStream_t stream) {
  const std::string text = "vocabulary " + std::to_string(vocab) + ", d " + std::to_string(d);
  if (fits_products(vocab, d)) {
    const dim3 grid(product_blocks(layout), static_cast<unsigned>(ceil_div(d, kColumns)),
                    static_cast<unsigned>(ceil_div(vocab, kIds)));
    auto* parts = static_cast<float*>(scratch);
    products_kernel<<<grid, kThreads, 0, stream>>>(layout, static_cast<int>(d), static_cast<int>(vocab),
                                                   in_fours(d, dout), tokens, dout, parts);
    check_launch("embedding_backward", text);
    column_sums("embedding_backward's sums", parts, grid.x, vocab * d, dweight, stream);
    return;
  }
  const int width = static_cast<int>(d < kThreads ? d : kThreads), groups = kThreads / width;
  const dim3 grid(static_cast<unsigned>(vocab), static_cast<unsigned>(ceil_div(d, width)));
  backward_kernel<<<grid, kThreads, 0, stream>>>(layout, static_cast<int>(d), width, groups, tokens, dout,
                                                 dweight);
  check_launch("embedding_backward", text);
}

#define HAX_INSTANTIATE(T)                                                                                  \
  template void embedding_forward<T>(const Layout&, int64_t, const T*, const int64_t*, T*, cudaStream_t);   \
  template void embedding_backward<T>(const Layout&, int64_t, int64_t, const int64_t*, const T*, T*, void*, \
                                      cudaStream_t);
HAX_INSTANTIATE(float)
HAX_INSTANTIATE(__nv_bfloat16)
#undef HAX_INSTANTIATE

}  // namespace hax::ops::cuda
