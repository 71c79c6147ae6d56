// One chunk of the SSD scan: what its forward and backward passes both compute.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "lib/ops/cpu/math.h"
#include "lib/ops/cpu/matrix.h"
#include "lib/ops/cpu/ssd.h"

namespace hax::cpu {

// Tokens a chunk; a multiple of kLanes.
constexpr int64_t kChunk = 16;

// Reads and writes of whole vectors in padded rows.
inline Vec& vec(float* p) { return *reinterpret_cast<Vec*>(p); }
inline const Vec& vec(const float* p) { return *reinterpret_cast<const Vec*>(p); }

inline float total(Vec v) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

inline float dot(const float* a, const float* b, int64_t n) {
  Vec sum{};
  for (int64_t i = 0; i < n; i += kLanes) sum += vec(a + i) * vec(b + i);
  return total(sum);
}

// to (q rows, `width` apart, zeros behind `columns`) = rows from ... on; the rows up to the next multiple of
// four are zero, so that the block can be transposed.
inline void copy_rows(const float* from, int64_t stride, int64_t q, int64_t columns, int64_t width, float* to) {
  for (int64_t i = 0; i < q; ++i) {
    std::copy_n(from + i * stride, columns, to + i * width);
    std::fill(to + i * width + columns, to + (i + 1) * width, 0.0f);
  }
  std::fill(to + q * width, to + (q + 3) / 4 * 4 * width, 0.0f);
}

// What a group's heads share.
struct GroupChunk {
  explicit GroupChunk(int64_t N)
      : N(N), width(padded(N)), B(kChunk * width), C(kChunk * width), transposed(width * kChunk), CB(kChunk * kChunk) {}

  void load(const SsdInput& in, int64_t token, int64_t q, int64_t group) {
    copy_rows(in.B.data + token * in.B.stride + group * N, in.B.stride, q, N, width, B.data());
    copy_rows(in.C.data + token * in.C.stride + group * N, in.C.stride, q, N, width, C.data());
    std::fill(transposed.begin(), transposed.end(), 0.0f);
    transpose((q + 3) / 4 * 4, width, B.data(), width, transposed.data(), kChunk);
    multiply(Into::overwrite, q, kChunk, N, {C.data(), width, 1}, transposed.data(), kChunk, CB.data(), kChunk);
  }

  int64_t N, width;
  std::vector<float> B, C;        // (kChunk, width)
  std::vector<float> transposed;  // (width, kChunk): B^T
  std::vector<float> CB;          // (kChunk, kChunk): C_i . B_j
};

// One head's steps, decays and inputs.
struct HeadChunk {
  explicit HeadChunk(int64_t P) : P(P), width(padded(P)), x(kChunk * width), dtx(kChunk * width) {}

  void load(const SsdInput& in, int64_t token, int64_t q, int64_t head, const float* CB) {
    std::fill(raw_dt, raw_dt + kChunk, 0.0f);
    for (int64_t i = 0; i < q; ++i) {
      raw_dt[i] = in.dt.data[(token + i) * in.dt.stride + head] + in.dt_bias[head];
    }
    const float A = in.A[head];
#pragma omp simd
    for (int64_t i = 0; i < kChunk; ++i) {
      dt[i] = softplus(raw_dt[i]);
      decay[i] = exp(dt[i] * A);
    }
    float* row = L;
    float product = 1;
    for (int64_t i = 0; i < q; ++i, row += kChunk) {
      product *= decay[i];
      from_start[i] = product;
      for (int64_t j = 0; j < kChunk; j += kLanes) {
        vec(row + j) = i == 0 ? Vec{} : decay[i] * vec(row - kChunk + j);
      }
      row[i] = 1;
      for (int64_t j = 0; j < kChunk; j += kLanes) vec(M + i * kChunk + j) = vec(row + j) * vec(CB + i * kChunk + j);
    }
    to_end = L + (q - 1) * kChunk;
    copy_rows(in.x.data + token * in.x.stride + head * P, in.x.stride, q, P, width, x.data());
    scale_rows(dt, x.data(), q, dtx.data());
    std::fill(dtx.begin() + q * width, dtx.begin() + (q + 3) / 4 * 4 * width, 0.0f);
  }

  // to_i = scale_i from_i, rows of `width`.
  void scale_rows(const float* scale, const float* from, int64_t q, float* to) const {
    for (int64_t i = 0; i < q; ++i) {
      for (int64_t p = 0; p < width; p += kLanes) vec(to + i * width + p) = scale[i] * vec(from + i * width + p);
    }
  }

  int64_t P, width;
  float raw_dt[kChunk], dt[kChunk], decay[kChunk];
  float from_start[kChunk];       // e_i
  float L[kChunk * kChunk];       // zero above the diagonal
  float M[kChunk * kChunk];       // (C B^T) o L
  const float* to_end = nullptr;  // last row of L
  std::vector<float> x, dtx;      // (kChunk, width)
};

}  // namespace hax::cpu
