// One chunk of the SSD scan: what its forward and backward passes both compute.
#pragma once

#include <algorithm>
#include <vector>

#include "lib/ops/cpu/math.h"
#include "lib/ops/cpu/matrix.h"
#include "lib/ops/cpu/ssd.h"

namespace hax::cpu {

// Tokens a chunk; a multiple of kLanes.
constexpr int64_t kChunk = 16;

typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(int32_t))));
constexpr IntVec kLaneNumbers{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline float dot(const float* a, const float* b, int64_t n) {
  Vec sum{};
  for (int64_t i = 0; i < n; i += kLanes) sum += vec(a + i) * vec(b + i);
  return total(sum);
}

// to (q rows, `width` apart, zeros behind `columns`) = rows from ... on; the rows up to the next multiple of
// four are zero, so that the block can be transposed.
inline void copy_rows(const float* from, int64_t stride, int64_t q, int64_t columns, int64_t width,
                      float* to) {
  const int64_t whole = columns / kLanes * kLanes;
  for (int64_t i = 0; i < q; ++i) {
    const float* source = from + i * stride;
    float* target = to + i * width;
    for (int64_t c = 0; c < whole; c += kLanes) store(target + c) = vec(source + c);
    if (whole == width) continue;
    Vec rest{};
    for (int64_t c = whole; c < columns; ++c) rest[c - whole] = source[c];
    store(target + whole) = rest;
  }
  std::fill(to + q * width, to + (q + 3) / 4 * 4 * width, 0.0f);
}

// What a group's heads share.
struct GroupChunk {
  explicit GroupChunk(int64_t N)
      : N(N),
        width(padded(N)),
        B(kChunk * width),
        C(kChunk * width),
        transposed(width * kChunk),
        CB(kChunk * kChunk) {}

  void load(const SsdInput& in, int64_t token, int64_t q, int64_t group) {
    copy_rows(in.B.data + token * in.B.stride + group * N, in.B.stride, q, N, width, B.data());
    copy_rows(in.C.data + token * in.C.stride + group * N, in.C.stride, q, N, width, C.data());
    std::fill(transposed.begin(), transposed.end(), 0.0f);
    transpose((q + 3) / 4 * 4, width, B.data(), width, transposed.data(), kChunk);
    multiply(Into::overwrite, q, kChunk, N, {C.data(), width, 1}, transposed.data(), kChunk, CB.data(),
             kChunk);
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
      slope[i] = sigmoid(raw_dt[i]);
      decay[i] = exp(dt[i] * A);
    }
    float product = 1;
    for (int64_t i = 0; i < q; ++i) from_start[i] = product *= decay[i];
    for (int64_t j = 0; j < kChunk; j += kLanes) {
      Vec row{};
      for (int64_t i = 0; i < q; ++i) {
        row = kLaneNumbers == static_cast<int32_t>(i - j) ? Vec{} + 1 : row * decay[i];
        store(L + i * kChunk + j) = row;
        store(M + i * kChunk + j) = row * vec(CB + i * kChunk + j);
      }
    }
    to_end = L + (q - 1) * kChunk;
    copy_rows(in.x.data + token * in.x.stride + head * P, in.x.stride, q, P, width, x.data());
    scale_rows(dt, x.data(), q, dtx.data());
    std::fill(dtx.begin() + q * width, dtx.begin() + (q + 3) / 4 * 4 * width, 0.0f);
  }

  // to_i = scale_i from_i, rows of `width`.
  void scale_rows(const float* scale, const float* from, int64_t q, float* to) const {
    for (int64_t i = 0; i < q; ++i) {
      for (int64_t p = 0; p < width; p += kLanes)
        store(to + i * width + p) = scale[i] * vec(from + i * width + p);
    }
  }

  int64_t P, width;
  float raw_dt[kChunk], dt[kChunk], decay[kChunk];
  float slope[kChunk];            // d dt / d raw_dt
  float from_start[kChunk];       // e_i
  float L[kChunk * kChunk];       // zero above the diagonal
  float M[kChunk * kChunk];       // (C B^T) o L
  const float* to_end = nullptr;  // last row of L
  std::vector<float> x, dtx;      // (kChunk, width)
};

}  // namespace hax::cpu
