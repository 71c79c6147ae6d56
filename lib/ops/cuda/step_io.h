// The ends of a captured training step: a batch as it comes from the host becomes the tensors of the step,
// and the step's numbers go into a ring that the host reads now and then.
#pragma once

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// One step's input as 32-bit words, so that one copy brings it:
//   step (low, high), learning rate (bits of a float), 0,
//   cu_seqlens (batch + 1), cu_scored (batch + 1), tokens (rows), scored (scored_rows), targets (scored_rows)
struct StepShape {
  int64_t batch;
  int64_t rows;         // capacity of tokens
  int64_t scored_rows;  // capacity of scored positions
  int64_t words() const { return 4 + 2 * (batch + 1) + rows + 2 * scored_rows; }
};

struct StepInput {
  int64_t* step;
  float* lr;
  int64_t *cu_seqlens, *cu_scored;      // (batch + 1)
  int64_t *tokens, *seq_id, *position;  // (rows); rows not in use: token 0, sequence `batch`, position 0
  int64_t *scored, *targets;            // (scored_rows); not in use: row -1, target -1
};
void unpack_step(const StepShape& shape, const int32_t* words, const StepInput& out, cudaStream_t stream);

struct StepNumbers {
  const float *loss, *aux_loss, *accuracy, *grad_norm;  // scalars; aux_loss may be null: 0
};
constexpr int64_t kRingSteps = 1024;
// ring (kRingSteps, 4) at place step % kRingSteps. Where a number is not finite, *stop becomes 1 and stays
// so.
void record_step(const StepNumbers& numbers, const int64_t* step, float* ring, int32_t* stop,
                 cudaStream_t stream);

}  // namespace hax::ops::cuda
