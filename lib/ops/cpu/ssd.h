// The SSD scan and its gradient on fp32, in chunks (lib/ops/ssd.h has the recurrence).
//
// Inside a chunk of q tokens, with e_i = prod_{t <= i} exp(dt_t A) and L_ij = prod_{j < t <= i} exp(dt_t A):
//   y = ((C B^T) o L) (dt x) + e o (C S_in) + D x,   S_out = e_q S_in + B^T (L_q. o dt x),
// with the state S as (N, P). Decays are products, never differences of sums: no exponent can overflow and
// none loses digits. Each group's C B^T is shared by its heads.
//
// Work is cut into tasks, each a sequence and a block of heads of one group; the cut depends on the shape
// alone. Tasks write disjoint places: what is summed over tasks is kept apart (lib/ops/cpu/reduce.h), so
// results do not depend on threads.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/ops/cpu/rows.h"

namespace hax::cpu {

struct SsdInput {
  ConstRows x;           // (T, H * P)
  ConstRows dt;          // (T, H)
  ConstRows B, C;        // (T, G * N)
  const float* A;        // (H)
  const float* D;        // (H)
  const float* dt_bias;  // (H)
};

struct SsdPlan {
  SsdPlan(const int64_t* offsets, int64_t batch, int64_t H, int64_t P, int64_t G, int64_t N);

  const int64_t* offsets;  // (batch + 1), borrowed
  int64_t batch, H, P, G, N;
  int64_t heads_per_task;
  std::vector<int64_t> first_chunk;  // (batch + 1): number of a sequence's first chunk

  int64_t tokens() const { return offsets[batch]; }
  int64_t blocks_per_group() const { return H / G / heads_per_task; }
  int64_t tasks() const { return batch * (H / heads_per_task); }
  int64_t state_floats() const;  // all states at the chunks' beginnings
};

// y (T, H, P) of tasks [begin, end). `states` (state_floats) receives what the gradient needs; may be null.
void ssd_forward(const SsdPlan& plan, const SsdInput& in, float* y, float* states, int64_t begin,
                 int64_t end);

struct SsdGradient {
  float* dx;   // (T, H, P)
  float* ddt;  // (T, H)
  float* dB;   // (blocks_per_group, T, G, N): parts, to be summed over blocks
  float* dC;
  float* dA;  // (batch, H): parts, to be summed over sequences
  float* dD;
  float* ddt_bias;
};

// dy (T, H * P) is the gradient of y.
void ssd_backward(const SsdPlan& plan, const SsdInput& in, const float* states, ConstRows dy,
                  const SsdGradient& out, int64_t begin, int64_t end);

}  // namespace hax::cpu
