// The ranking loss of the score MLP at sampled keys, with its gradients (lib/ops/sampled_ranking.h): a block
// a sequence.
#pragma once

#include "lib/ops/cuda/key_selection.h"

namespace hax::ops::cuda {

// A float or bf16 array, told apart at run time.
struct FloatArray {
  const void* data;
  bool is_bf16;
};

struct RankingInput {
  FloatArray K, summary;  // (rows, d)
  int64_t K_stride, summary_stride;
  const int64_t* sampled;  // (batch, k)
  FloatArray targets;      // (batch, k)
};

struct RankingShape {
  int64_t d, k;
  int64_t width() const { return 2 * d; }
  // Of w1, b1, w2, b2, w3, b3, in this order.
  int64_t weights() const { return 2 * width() * width() + 3 * width() + 1; }
};

// Whether a block's shared memory holds the shape: d even.
bool has_sampled_ranking(const RankingShape& shape);

// parts (batch, weights + 2): each sequence's gradients of its sum over pairs, that sum, and the number of
// pairs. mean (2): the loss and the reciprocal of the number of all pairs. rounds_pairs: differences of
// scores are rounded to W. W: float or __nv_bfloat16.
template <class W>
void sampled_ranking_forward(const Layout& layout, const RankingShape& shape, const RankingInput& in,
                             const ScoreWeights<W>& weights, bool rounds_pairs, float* parts, float* mean,
                             cudaStream_t stream);

// gradients (weights): dloss times those of the loss. dloss (1).
template <class W>
void sampled_ranking_backward(int64_t batch, const RankingShape& shape, const float* parts, const float* mean,
                              const float* dloss, W* gradients, cudaStream_t stream);

}  // namespace hax::ops::cuda
