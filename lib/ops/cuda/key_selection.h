// Key selection on packed sequences (lib/ops/key_selection.h): query summary, scores, running top-k, ranking
// sample, targets and loss.
#pragma once

#include <cuda_bf16.h>

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// Running sum of Q in fp32 divided by its norm; d at most kSummaryWidest. summary (rows, d) contiguous.
// scratch: summary_scratch_floats(...) floats.
constexpr int64_t kSummaryWidest = 256;
int64_t summary_scratch_floats(const Layout& layout, int64_t d);
template <class T>
void query_summary_causal(const Layout& layout, int64_t d, Rows<const T> Q, float* summary, float* scratch,
                          cudaStream_t stream);

// The score MLP 2 d -> 2 d -> 2 d -> 1 on tensor cores, ReLU between, inputs and hidden features in bf16.
struct ScoreWeights {
  const float *w1, *b1, *w2, *b2, *w3, *b3;  // w1, w2 (2 d, 2 d)
};
bool has_key_scores(int64_t d);  // 2 d is 16, 32, 64 or 128
void key_scores(const Layout& layout, int64_t d, Rows<const __nv_bfloat16> K, Rows<const float> summary,
                const ScoreWeights& weights, float* scores, cudaStream_t stream);

// evicted (rows); k at most kTopkMost. One warp a sequence: time grows with the number of keys ever chosen.
constexpr int64_t kTopkMost = 256;
void cumulative_topk(const Layout& layout, int64_t k, const float* scores, int64_t* evicted,
                     cudaStream_t stream);

// The k positions of each sequence with the largest noise, from the largest down: word p of Philox stream
// (seed, purpose, layer, step, index = sequence) is the noise of position p. `step` lies on the device.
// sampled (batch, k); places behind the sequence's end hold -1, or with fill_with_pad the lowest padded
// positions, and -1 from padded_length on.
struct SampleKey {
  uint64_t seed;
  uint32_t purpose_and_layer;  // purpose | layer << 8
  const int64_t* step;
};
void sample_positions(const Layout& layout, int64_t k, const SampleKey& key, bool fill_with_pad,
                      int64_t padded_length, int64_t* sampled, cudaStream_t stream);

// pad_queries (batch): padded queries behind each sequence. targets (batch, k) fp32.
template <class T>
void ranking_targets(const Layout& layout, int64_t d, int64_t k, Rows<const T> Q, Rows<const T> K,
                     const int64_t* sampled, const int64_t* pad_queries, float* targets, cudaStream_t stream);

// valid (batch, k). loss: the mean over pairs of valid places; slopes (batch, k): d loss / d scores. scratch:
// 2 batch floats.
void ranking_loss(int64_t batch, int64_t k, const float* scores, const float* targets, const bool* valid,
                  float* loss, float* slopes, float* scratch, cudaStream_t stream);

}  // namespace hax::ops::cuda
