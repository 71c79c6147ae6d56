// One strip of kLanes channels of the selective scan: what its forward and backward passes both compute.
// Places behind the last channel hold zeros, in parameters and inputs, and stay zero in every result.
#pragma once

#include <algorithm>
#include <vector>

#include "lib/ops/cpu/math.h"
#include "lib/ops/cpu/matrix.h"
#include "lib/ops/cpu/selective_scan.h"

namespace hax::cpu {

// Tokens between two kept states: the states and decays recomputed inside have to fit the nearest caches.
constexpr int64_t kScanChunk = 16;

inline Vec load_lanes(const float* from, int64_t lanes) {
  if (lanes == kLanes) return vec(from);
  Vec v{};
  for (int64_t l = 0; l < lanes; ++l) v[l] = from[l];
  return v;
}

inline void store_lanes(Vec v, float* to, int64_t lanes) {
  if (lanes == kLanes) {
    store(to) = v;
    return;
  }
  for (int64_t l = 0; l < lanes; ++l) to[l] = v[l];
}

struct ScanStrip {
  explicit ScanStrip(int64_t N) : N(N), A(N * kLanes) {}

  // The channels from `first` on.
  void load_parameters(const SelectiveScanInput& in, int64_t first, int64_t channels) {
    channel = first;
    lanes = std::min(kLanes, channels - first);
    std::fill(A.begin(), A.end(), 0.0f);
    for (int64_t l = 0; l < lanes; ++l) {
      for (int64_t n = 0; n < N; ++n) A[n * kLanes + l] = in.A[(first + l) * N + n];
    }
    D = load_lanes(in.D + first, lanes);
    dt_bias = load_lanes(in.dt_bias + first, lanes);
  }

  // The q tokens from `token` on.
  void load_chunk(const SelectiveScanInput& in, int64_t token, int64_t q) {
    for (int64_t i = 0; i < q; ++i) {
      store(u + i * kLanes) = load_lanes(in.u.row(token + i) + channel, lanes);
      store(raw_dt + i * kLanes) = load_lanes(in.delta.row(token + i) + channel, lanes) + dt_bias;
    }
#pragma omp simd
    for (int64_t i = 0; i < q * kLanes; ++i) {
      dt[i] = softplus(raw_dt[i]);
      dtu[i] = dt[i] * u[i];
    }
  }

  // decay (N, kLanes) = exp(dt_i A).
  void decays(int64_t i, float* decay) const {
    const float* step = dt + i * kLanes;
    for (int64_t n = 0; n < N; ++n) {
#pragma omp simd
      for (int64_t l = 0; l < kLanes; ++l) decay[n * kLanes + l] = exp(step[l] * A[n * kLanes + l]);
    }
  }

  int64_t N;
  int64_t channel = 0, lanes = 0;
  std::vector<float> A;  // (N, kLanes)
  Vec D{}, dt_bias{};
  // (kScanChunk, kLanes)
  float u[kScanChunk * kLanes] = {}, raw_dt[kScanChunk * kLanes] = {};
  float dt[kScanChunk * kLanes] = {}, dtu[kScanChunk * kLanes] = {};
};

}  // namespace hax::cpu
