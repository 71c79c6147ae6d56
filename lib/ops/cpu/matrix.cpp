#include "lib/ops/cpu/matrix.h"

#include <algorithm>
#include <utility>

namespace hax::cpu {
namespace {

// f(0), ..., f(n - 1) with constant arguments: an array indexed by them lives in registers, which a loop
// does not ensure.
template <int n, class F>
[[gnu::always_inline]] inline void repeat(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (f(i), ...); }
  (std::make_integer_sequence<int, n>{});
}

// A tile of the result stays in registers: kRows x kVecs accumulators.
template <Into into, int kRows, int kVecs>
[[gnu::always_inline]] inline void tile(int64_t k_begin, int64_t k_end, MatrixView A, const float* B,
                                        int64_t ldb, float* C, int64_t ldc) {
  Vec sum[kRows * kVecs];
  repeat<kRows * kVecs>([&](int s) __attribute__((always_inline)) {
    sum[s] = into == Into::add ? vec(C + s / kVecs * ldc + s % kVecs * kLanes) : Vec{};
  });
  for (int64_t l = k_begin; l < k_end; ++l) {
    Vec b[kVecs];
    repeat<kVecs>([&](int v) __attribute__((always_inline)) { b[v] = vec(B + l * ldb + v * kLanes); });
    const float* a = A.data + l * A.column;
    repeat<kRows * kVecs>([&](int s) __attribute__((always_inline)) {
      sum[s] += a[s / kVecs * A.row] * b[s % kVecs];
    });
  }
  repeat<kRows * kVecs>([&](int s) __attribute__((always_inline)) {
    store(C + s / kVecs * ldc + s % kVecs * kLanes) = sum[s];
  });
}

enum class Shape { full, lower, upper };

template <Into into, Shape shape, int kRows, int kVecs>
inline void tile_of(int64_t i, int64_t k, MatrixView A, const float* B, int64_t ldb, float* C, int64_t ldc) {
  const int64_t begin = shape == Shape::upper ? i : 0;
  const int64_t end = shape == Shape::lower ? std::min(i + kRows, k) : k;
  tile<into, kRows, kVecs>(begin, end, {A.data + i * A.row, A.row, A.column}, B, ldb, C + i * ldc, ldc);
}

template <Into into, Shape shape, int kVecs>
void columns(int64_t m, int64_t k, MatrixView A, const float* B, int64_t ldb, float* C, int64_t ldc) {
  constexpr int kRows = 8;
  int64_t i = 0;
  for (; i + kRows <= m; i += kRows) tile_of<into, shape, kRows, kVecs>(i, k, A, B, ldb, C, ldc);
  for (; i + 2 <= m; i += 2) tile_of<into, shape, 2, kVecs>(i, k, A, B, ldb, C, ldc);
  if (i < m) tile_of<into, shape, 1, kVecs>(i, k, A, B, ldb, C, ldc);
}

template <Into into, Shape shape>
void product(int64_t m, int64_t n, int64_t k, MatrixView A, const float* B, int64_t ldb, float* C,
             int64_t ldc) {
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) columns<into, shape, 2>(m, k, A, B + j, ldb, C + j, ldc);
  if (j < n) columns<into, shape, 1>(m, k, A, B + j, ldb, C + j, ldc);
}

template <Shape shape>
void dispatch(Into into, int64_t m, int64_t n, int64_t k, MatrixView A, const float* B, int64_t ldb, float* C,
              int64_t ldc) {
  if (into == Into::add) {
    product<Into::add, shape>(m, n, k, A, B, ldb, C, ldc);
  } else {
    product<Into::overwrite, shape>(m, n, k, A, B, ldb, C, ldc);
  }
}

typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));

}  // namespace

void multiply(Into into, int64_t m, int64_t n, int64_t k, MatrixView A, const float* B, int64_t ldb, float* C,
              int64_t ldc) {
  dispatch<Shape::full>(into, m, n, k, A, B, ldb, C, ldc);
}

void multiply_lower(Into into, int64_t m, int64_t n, MatrixView A, const float* B, int64_t ldb, float* C,
                    int64_t ldc) {
  dispatch<Shape::lower>(into, m, n, m, A, B, ldb, C, ldc);
}

void multiply_upper(Into into, int64_t m, int64_t n, MatrixView A, const float* B, int64_t ldb, float* C,
                    int64_t ldc) {
  dispatch<Shape::upper>(into, m, n, m, A, B, ldb, C, ldc);
}

void transpose(int64_t m, int64_t n, const float* from, int64_t ldf, float* to, int64_t ldt) {
  for (int64_t i = 0; i < m; i += 4) {
    for (int64_t j = 0; j < n; j += 4) {
      const float* source = from + i * ldf + j;
      const Quad a = *reinterpret_cast<const Quad*>(source), b = *reinterpret_cast<const Quad*>(source + ldf);
      const Quad c = *reinterpret_cast<const Quad*>(source + 2 * ldf),
                 d = *reinterpret_cast<const Quad*>(source + 3 * ldf);
      const Quad ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5),
                 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Quad cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5),
                 cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      float* target = to + j * ldt + i;
      *reinterpret_cast<Quad*>(target) = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
      *reinterpret_cast<Quad*>(target + ldt) = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
      *reinterpret_cast<Quad*>(target + 2 * ldt) = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
      *reinterpret_cast<Quad*>(target + 3 * ldt) = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
    }
  }
}

}  // namespace hax::cpu
