// The causal query summary of a chunk in registers.
#pragma once

#include "lib/ops/cuda/chunk_sums.cuh"

namespace hax::ops::cuda {

// x: the running sums of Q over a sequence, each divided by its norm, in the rows of `chunk`, which is the
// sequence's `index`-th. sums (chunks, pitch): of the sequence. shared: 2 kShared floats of the team. All
// threads of the block call it.
template <class T, class Team>
__device__ __forceinline__ void summarise(float (&x)[Team::kRows][Team::F], const Team& team,
                                          const Features<T>& Q, const Chunk& chunk, const float* sums,
                                          int pitch, bool fours, int index, float* shared) {
  float entering[Team::F] = {};
  team.load(x, Q, chunk);
  team.add_chunks(entering, sums, pitch, Q.d, fours, index);
  team.running(x, entering, shared);
#pragma unroll
  for (int r = 0; r < Team::kRows; ++r) {
    float square = 0.0f;
#pragma unroll
    for (int i = 0; i < Team::F; ++i) square = fmaf(x[r][i], x[r][i], square);
    square = team.over_row(square);
    const float inverse = 1.0f / fmaxf(sqrtf(square), 1e-12f);
#pragma unroll
    for (int i = 0; i < Team::F; ++i) x[r][i] *= inverse;
  }
}

}  // namespace hax::ops::cuda
