// Loss at scored positions (lib/ops/cross_entropy.h), and the accuracy per example.
#pragma once

#include <cuda_bf16.h>

#include "lib/ops/cuda/launch.h"

namespace hax::ops::cuda {

// A target below 0 marks a row that is not in use: no loss, not correct, gradient zero.
struct LossShape {
  int64_t rows;
  int64_t vocab;
};

// `rounds`: log-probabilities, the loss and their gradients are rounded to T.
// logits (rows, vocab) contiguous. normaliser (rows): log of the sum of exponentials. loss: the mean over
// rows in use, and inverse_count its 1 / rows in use. scratch: loss_scratch_floats(shape) floats.
int64_t loss_scratch_floats(const LossShape& shape);
template <class T>
void cross_entropy_forward(const LossShape& shape, bool rounds, const T* logits, const int64_t* target,
                           float* normaliser, bool* correct, float* loss, float* inverse_count,
                           float* scratch, cudaStream_t stream);

// dlogits = (softmax - one-hot) * dloss * inverse_count.
template <class T>
void cross_entropy_backward(const LossShape& shape, bool rounds, const T* logits, const int64_t* target,
                            const float* normaliser, const float* dloss, const float* inverse_count,
                            T* dlogits, cudaStream_t stream);

// The mean over examples of the fraction of rows [cu_scored[b], cu_scored[b + 1]) that are correct.
void example_accuracy(int64_t batch, const bool* correct, const int64_t* cu_scored, float* accuracy,
                      cudaStream_t stream);

}  // namespace hax::ops::cuda
