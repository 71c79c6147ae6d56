// Tiles of attention in shared memory and their products, a warp owning 16 rows. T: bf16, whose products are
// fed by ldmatrix, or float, whose products are three of TF32 (mma.cuh).
#pragma once

#include "lib/ops/cuda/attention_members.cuh"
#include "lib/ops/cuda/convert.cuh"
#include "lib/ops/cuda/mma.cuh"

namespace hax::ops::cuda {

// A tile that a block walks over; several are in shared memory, one is read while the next arrive.
template <class T, int DQK, int DV>
struct Stage {
  T narrow[kTile * (DQK + 8)];  // K, or Q
  T wide[kTile * (DV + 8)];     // V, or dO
};

// Starts copying kTile rows into shared memory, row r from row_of(r), zeros where that is -1; D is the padded
// width, `width` the real one.
template <int D, int THREADS, class T, class RowOf>
__device__ __forceinline__ void load_rows(T* tile, Rows<const T> from, int width, const RowOf& row_of) {
  constexpr int kVector = 16 / sizeof(T), kVectors = D / kVector, kAll = kTile * kVectors;
#pragma unroll
  for (int i = 0; i < (kAll + THREADS - 1) / THREADS; ++i) {
    const int v = threadIdx.x + i * THREADS, r = v / kVectors, c = v % kVectors * kVector;
    if (kAll % THREADS != 0 && v >= kAll) break;
    const int64_t row = row_of(r);
    const bool real = row >= 0 && c < width;
    copy_async(tile + r * (D + 8) + c, from.data + (real ? row * from.stride + c : 0), real);
  }
}

template <int N>
__device__ __forceinline__ void clear(float (&S)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) S[n][e] = 0.0f;
  }
}

// S (16 x 8 N, as C fragments) = rows of A times the transpose of B's rows.
template <int D, int N>
__device__ __forceinline__ void product(float (&S)[N][4], const bf16* A, const bf16* B, int lane) {
  clear(S);
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
    uint32_t a[4];
    load_a(a, A + k * 16, D + 8, lane);
#pragma unroll
    for (int n = 0; n < N / 2; ++n) {
      uint32_t b[4];
      load_b(b, B + n * 16 * (D + 8) + k * 16, D + 8, lane);
      mma(S[2 * n], a, b[0], b[1]);
      mma(S[2 * n + 1], a, b[2], b[3]);
    }
  }
}
template <int D, int N>
__device__ __forceinline__ void product(float (&S)[N][4], const float* A, const float* B, int lane) {
  clear(S);
#pragma unroll 2
  for (int k = 0; k < D / 16; ++k) {
    const OperandA<float> a = load_a(A + k * 16, D + 8, lane);
#pragma unroll
    for (int n = 0; n < N; ++n) mma(S[n], a, load_b(B + n * 8 * (D + 8) + k * 16, D + 8, lane));
  }
}

// The 16 rows of a warp as A of many products: of bf16 in registers, of fp32, which has no room there, in
// shared memory.
template <class T, int D>
struct OwnRows {
  const T* rows;
  __device__ __forceinline__ void load(const T* from, int) { rows = from; }
};
template <int D>
struct OwnRows<bf16, D> {
  uint32_t part[D / 16][4];
  __device__ __forceinline__ void load(const bf16* from, int lane) {
#pragma unroll
    for (int k = 0; k < D / 16; ++k) load_a(part[k], from + k * 16, D + 8, lane);
  }
};
template <class T, int D, int N>
__device__ __forceinline__ void product(float (&S)[N][4], const OwnRows<T, D>& A, const T* B, int lane) {
  if constexpr (std::is_same_v<T, bf16>) {
    clear(S);
#pragma unroll
    for (int n = 0; n < N / 2; ++n) {
#pragma unroll
      for (int k = 0; k < D / 16; ++k) {
        uint32_t b[4];
        load_b(b, B + n * 16 * (D + 8) + k * 16, D + 8, lane);
        mma(S[2 * n], A.part[k], b[0], b[1]);
        mma(S[2 * n + 1], A.part[k], b[2], b[3]);
      }
    }
  } else {
    product<D>(S, A.rows, B, lane);
  }
}

// out (16 x D) += P (16 x 8 N, C fragments, rounded to T) times B (8 N x D).
template <int D, int N>
__device__ __forceinline__ void accumulate(float (&out)[D / 8][4], const float (&P)[N][4], const bf16* B,
                                           int lane) {
#pragma unroll
  for (int k = 0; k < N / 2; ++k) {
    const uint32_t a[4] = {pack(P[2 * k][0], P[2 * k][1]), pack(P[2 * k][2], P[2 * k][3]),
                           pack(P[2 * k + 1][0], P[2 * k + 1][1]), pack(P[2 * k + 1][2], P[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < D / 16; ++n) {
      uint32_t b[4];
      load_b_trans(b, B + k * 16 * (D + 8) + n * 16, D + 8, lane);
      mma(out[2 * n], a, b[0], b[1]);
      mma(out[2 * n + 1], a, b[2], b[3]);
    }
  }
}
template <int D, int N>
__device__ __forceinline__ void accumulate(float (&out)[D / 8][4], const float (&P)[N][4], const float* B,
                                           int lane) {
#pragma unroll
  for (int k = 0; k < N / 2; ++k) {
    OperandA<float> a;
#pragma unroll
    for (int i = 0; i < 4; ++i) a.set(i, P[2 * k + i / 2][i % 2 * 2], P[2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      // Tensor cores cut sums off where fp32 rounds, which would add up over thousands of steps.
      float part[4] = {};
      mma(part, a, load_b_transposed(B + k * 16 * (D + 8) + n * 8, D + 8, lane));
#pragma unroll
      for (int e = 0; e < 4; ++e) out[n][e] += part[e];
    }
  }
}

// C fragments to rows[half], -1: none, of a contiguous (rows, width) matrix, scaled by row.
template <int D, class T>
__device__ __forceinline__ void store_rows(T* to, const float (&out)[D / 8][4], const int64_t (&rows)[2],
                                           int width, int lane, float scale_low, float scale_high) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (rows[half] < 0) continue;
    const float scale = half == 0 ? scale_low : scale_high;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      store_pair(to + rows[half] * width, n * 8 + lane % 4 * 2, width, out[n][2 * half] * scale,
                 out[n][2 * half + 1] * scale);
    }
  }
}

// Zeros in the rows that no sequence uses: a share for each block of the grid.
template <class T>
__device__ __forceinline__ void zero_unused_rows(const Layout& layout, T* out, int width) {
  const int64_t first = layout.cu_seqlens[layout.batch] * width, last = layout.rows * width;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = first + static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < last; i += step)
    out[i] = from_float<T>(0.0f);
}

// Walks over the tiles of a list of `count` entries, in STAGES stages of shared memory: fetch(tile, stage)
// starts copies of a tile, and visit(tile, stage) reads them while the next tiles arrive. ready() runs when
// the first tiles are on their way and STAGES - 1 groups of copies are committed behind those of the caller.
// All threads of a block call it, synchronised, and leave it so, with nothing on its way.
template <int STAGES, class Fetch, class Visit, class Ready>
__device__ __forceinline__ void for_tiles(int count, const Fetch& fetch, const Visit& visit,
                                          const Ready& ready) {
  const int tiles = (count + kTile - 1) / kTile;
#pragma unroll
  for (int tile = 0; tile < STAGES - 1; ++tile) {
    if (tile < tiles) fetch(tile, tile);
    commit_copies();
  }
  ready();
  for (int tile = 0, stage = 0, ahead = STAGES - 1; tile < tiles; ++tile) {
    wait_copies<STAGES - 2>();
    __syncthreads();  // the tile is here, and that before it has been read
    if (tile + STAGES - 1 < tiles) fetch(tile + STAGES - 1, ahead);
    commit_copies();
    visit(tile, stage);
    stage = stage + 1 < STAGES ? stage + 1 : 0;
    ahead = ahead + 1 < STAGES ? ahead + 1 : 0;
  }
  wait_copies<0>();
  __syncthreads();
}

// f(DQK, DV) with the padded widths as compile-time constants.
template <class T, int DQK, class F>
void with_d_v(int64_t d_v, const F& f) {
  using A = std::integral_constant<int, DQK>;
  if (d_v <= 64) return f(A(), std::integral_constant<int, 64>());
  if (d_v <= 128) return f(A(), std::integral_constant<int, 128>());
  if constexpr (kAttentionWidest < T >> 128) f(A(), std::integral_constant<int, 256>());
}
template <class T, class F>
void with_widths(const AttentionShape& shape, const F& f) {
  if (shape.d_qk <= 16) return with_d_v<T, 16>(shape.d_v, f);
  if (shape.d_qk <= 32) return with_d_v<T, 32>(shape.d_v, f);
  with_d_v<T, 64>(shape.d_v, f);
}

inline int most_tiles(const Layout& layout) { return static_cast<int>(ceil_div(layout.max_seqlen, kTile)); }
inline unsigned blocks_of(const Layout& layout) {
  return static_cast<unsigned>(most_tiles(layout) * layout.batch);
}

// Lets a kernel have this much shared memory.
template <class Kernel>
size_t allow_shared(Kernel kernel, size_t bytes) {
  if (bytes > 40 * 1024)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  return bytes;
}

inline std::string shape_text(const Layout& layout, const AttentionShape& shape) {
  return "sequences " + std::to_string(layout.batch) + " of at most " + std::to_string(layout.max_seqlen) +
         ", d_qk " + std::to_string(shape.d_qk) + ", d_v " + std::to_string(shape.d_v);
}

}  // namespace hax::ops::cuda
