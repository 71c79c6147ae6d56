// The selective scan and its gradient on fp32 (lib/ops/selective_scan.h has the recurrence).
//
// Channels are taken kLanes at a time, a strip: its state is (N, kLanes), and a token's products are whole
// vectors. The forward pass keeps the state at the beginning of every chunk of tokens; the backward pass goes
// through the chunks from the last one, recomputes the states inside, and carries the gradient of the state.
//
// Work is cut into tasks, each a sequence and some of the strips; the cut depends on the shape alone. Tasks
// write disjoint places: what is summed over tasks is kept apart (lib/ops/cpu/reduce.h), so results do not
// depend on threads.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/ops/cpu/rows.h"

namespace hax::cpu {

struct SelectiveScanInput {
  ConstRows u, delta;    // (T, channels)
  ConstRows B, C;        // (T, N)
  const float* A;        // (channels, N)
  const float* D;        // (channels)
  const float* dt_bias;  // (channels)
};

struct SelectiveScanPlan {
  SelectiveScanPlan(const int64_t* offsets, int64_t batch, int64_t channels, int64_t N);

  const int64_t* offsets;  // (batch + 1), borrowed
  int64_t batch, channels, N;
  int64_t strips, strips_per_task;
  std::vector<int64_t> first_chunk;  // (batch + 1): number of a sequence's first chunk

  int64_t tokens() const { return offsets[batch]; }
  int64_t tasks_per_sequence() const { return (strips + strips_per_task - 1) / strips_per_task; }
  int64_t tasks() const { return batch * tasks_per_sequence(); }
  int64_t state_floats() const;  // all states at the chunks' beginnings
};

// y (T, channels) of tasks [begin, end). `states` (state_floats) receives what the gradient needs; may be
// null.
void selective_scan_forward(const SelectiveScanPlan& plan, const SelectiveScanInput& in, float* y,
                            float* states, int64_t begin, int64_t end);

struct SelectiveScanGradient {
  float* du;      // (T, channels)
  float* ddelta;  // (T, channels)
  float* dB;      // (tasks_per_sequence, T, N): parts, to be summed over tasks
  float* dC;
  float* dA;  // (batch, channels, N): parts, to be summed over sequences
  float* dD;  // (batch, channels)
  float* ddt_bias;
};

// dy (T, channels) is the gradient of y.
void selective_scan_backward(const SelectiveScanPlan& plan, const SelectiveScanInput& in, const float* states,
                             ConstRows dy, const SelectiveScanGradient& out, int64_t begin, int64_t end);

}  // namespace hax::cpu
