// Small dense products for kernels that work in blocks: operands lie in the cache, the right operand and the
// result in rows padded to whole vectors. Each element of a result is summed in the order of the inner index,
// so that no result depends on how rows are grouped.
#pragma once

#include <cstdint>

namespace hax::cpu {

// Sixteen floats; narrower processors work on it in pieces.
constexpr int64_t kLanes = 16;
typedef float Vec __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

// Reads and writes of whole vectors at any address: vec(p), store(p) = v. Never by a reference to a Vec,
// which clang takes for one at a multiple of its size.
inline Vec vec(const float* p) { return *reinterpret_cast<const Vec*>(p); }
struct StoredVec {
  float* p;
  void operator=(Vec v) const { *reinterpret_cast<Vec*>(p) = v; }
  void operator+=(Vec v) const { *reinterpret_cast<Vec*>(p) += v; }
  void operator*=(float scale) const { *reinterpret_cast<Vec*>(p) *= scale; }
};
inline StoredVec store(float* p) { return {p}; }

// Sum of the lanes.
inline float total(Vec v) {
  const auto eight = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                     __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  const auto four =
      __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  const auto two = four + __builtin_shufflevector(four, four, 2, 3, 0, 1);
  return two[0] + two[1];
}

constexpr int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// A(i, l) = data[i * row + l * column].
struct MatrixView {
  const float* data;
  int64_t row;
  int64_t column;
};

enum class Into { overwrite, add };

// C (m x n, rows ldc apart) = or += A (m x k) B (k x n, rows ldb apart); n a multiple of kLanes.
void multiply(Into into, int64_t m, int64_t n, int64_t k, MatrixView A, const float* B, int64_t ldb, float* C,
              int64_t ldc);

// The same where A is lower triangular (A(i, l) = 0 for l > i), m = k.
void multiply_lower(Into into, int64_t m, int64_t n, MatrixView A, const float* B, int64_t ldb, float* C,
                    int64_t ldc);
// The same where A is upper triangular (A(i, l) = 0 for l < i), m = k.
void multiply_upper(Into into, int64_t m, int64_t n, MatrixView A, const float* B, int64_t ldb, float* C,
                    int64_t ldc);

// to (n x m, rows ldt apart) = transpose of from (m x n, rows ldf apart); m and n multiples of 4.
void transpose(int64_t m, int64_t n, const float* from, int64_t ldf, float* to, int64_t ldt);

}  // namespace hax::cpu
