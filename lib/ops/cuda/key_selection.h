// Key selection on packed sequences (lib/ops/key_selection.h): query summary, scores, running top-k, and the
// ranking sample and targets. One .cu file each: query_summary, key_scores, running_topk (with the sample),
// ranking_targets.
#pragma once

#include <cuda_bf16.h>

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// d at most kSummaryWidest; summary (rows, d) contiguous. Nothing is written behind the last sequence.
// `causal`: the running sum of Q in fp32 divided by its norm. scratch: summary_scratch_floats(...) floats.
constexpr int64_t kSummaryWidest = 256;
int64_t summary_scratch_floats(const Layout& layout, int64_t d);
template <class T>
void query_summary_causal(const Layout& layout, int64_t d, Rows<const T> Q, float* summary, float* scratch,
                          cudaStream_t stream);
// `paper`: the running sum, each partial sum rounded to T, divided by each feature's norm over the padded
// sequence; norm and quotient rounded to T. One block a sequence: time grows with the longest.
template <class T>
void query_summary_paper(const Layout& layout, int64_t d, int64_t padded_length, Rows<const T> Q, T* summary,
                         cudaStream_t stream);

// The score MLP 2 d -> 2 d -> 2 d -> 1 on tensor cores, ReLU between; inputs, weights of the first two layers
// and hidden features in bf16. S, W: float or __nv_bfloat16.
template <class W>
struct ScoreWeights {
  const W *w1, *b1, *w2, *b2, *w3, *b3;  // w1, w2 (2 d, 2 d)
};
bool has_key_scores(int64_t d);  // 2 d is 16, 32, 64 or 128
template <class S, class W>
void key_scores(const Layout& layout, int64_t d, Rows<const __nv_bfloat16> K, Rows<const S> summary,
                const ScoreWeights<W>& weights, W* scores, cudaStream_t stream);

// evicted (rows); k at most kTopkMost. One warp a sequence: time grows with the number of keys ever chosen.
constexpr int64_t kTopkMost = 256;
template <class T>
void cumulative_topk(const Layout& layout, int64_t k, const T* scores, int64_t* evicted, cudaStream_t stream);

// The k positions of each sequence with the largest noise, from the largest down and the earlier of equals
// first: the highest noise_bits bits of word p of Philox stream (seed, purpose, layer, step, index =
// sequence) are the noise of position p. `step` lies on the device.
// sampled (batch, k); places behind the sequence's end hold -1, or with fill_with_pad the lowest padded
// positions, and -1 from padded_length on.
struct SampleKey {
  uint64_t seed;
  uint32_t purpose_and_layer;  // purpose | layer << 8
  const int64_t* step;
  int noise_bits;  // 1 .. 32
};
void sample_positions(const Layout& layout, int64_t k, const SampleKey& key, bool fill_with_pad,
                      int64_t padded_length, int64_t* sampled, cudaStream_t stream);

// pad_queries (batch): padded queries behind each sequence; null: none. targets (batch, k); products, sigmoids and
// targets are rounded to Y. (T, Y): both float, both bf16, or T bf16 and Y float.
template <class T, class Y>
void ranking_targets(const Layout& layout, int64_t d, int64_t k, Rows<const T> Q, Rows<const T> K,
                     const int64_t* sampled, const int64_t* pad_queries, Y* targets, cudaStream_t stream);

}  // namespace hax::ops::cuda
