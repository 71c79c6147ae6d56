// bf16 tiles in shared memory for tensor cores: the m16n8k16 product and the loads that feed it (sm_80 on).
//
// Fragments of a warp, lane l, g = l / 4, c = 2 (l % 4):
//   A (16 x 16)  a[0], a[1]: rows g, g + 8, columns c, c + 1;  a[2], a[3]: the same rows, columns c + 8, c +
//   9 B (16 x 8)   b[0]: rows c, c + 1, column g;  b[1]: rows c + 8, c + 9 C (16 x 8)   c[0], c[1]: row g,
//   columns c, c + 1;  c[2], c[3]: row g + 8
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "lib/ops/cuda/exponentials.cuh"

namespace hax::ops::cuda {

using bf16 = __nv_bfloat16;

__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], const bf16* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)));
}
__device__ __forceinline__ void ldmatrix_trans(uint32_t (&r)[4], const bf16* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)));
}

// A fragment from a row-major tile: rows [0, 16), columns [0, 16) of `tile`.
__device__ __forceinline__ void load_a(uint32_t (&a)[4], const bf16* tile, int pitch, int lane) {
  ldmatrix(a, tile + (lane % 16) * pitch + (lane / 16) * 8);
}
// Two B fragments (b[0], b[1]: columns 0..7; b[2], b[3]: columns 8..15) of the transpose of a row-major tile:
// tile[n][k], n in [0, 16), k in [0, 16).
__device__ __forceinline__ void load_b(uint32_t (&b)[4], const bf16* tile, int pitch, int lane) {
  ldmatrix(b, tile + (lane % 8 + (lane / 16) * 8) * pitch + (lane / 8 % 2) * 8);
}
// Two B fragments of a row-major tile: tile[k][n], k in [0, 16), n in [0, 16).
__device__ __forceinline__ void load_b_trans(uint32_t (&b)[4], const bf16* tile, int pitch, int lane) {
  ldmatrix_trans(b, tile + (lane % 16) * pitch + (lane / 16) * 8);
}

__device__ __forceinline__ uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// 16 bytes from global to shared memory, without waiting: zeros where `real` is false. A thread's copies
// since its last commit form a group; wait_copies<N> waits for all but the N newest groups of the thread.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool real) {
  const int bytes = real ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from),
               "r"(bytes));
}
// The same of one 32-bit word.
__device__ __forceinline__ void copy_word(void* to, const void* from, bool real) {
  const int bytes = real ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(to)), "l"(from),
               "r"(bytes));
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;\n"); }
template <int N>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N));
}

}  // namespace hax::ops::cuda
