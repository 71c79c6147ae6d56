// The random draws of a forward pass. One interface, so that tests can hand in the draws of golden files.
#pragma once

#include <cstdint>

#include "lib/ops/layout.h"

namespace hax {

class Draws {
 public:
  virtual ~Draws() = default;
  virtual bool training() const = 0;
  // (d, h) i.i.d. N(0, 1), fp32, CPU.
  virtual at::Tensor hash_matrix(int64_t layer, int64_t d, int64_t h) const = 0;
  // (B, k) int64 on the layout's device: k distinct positions of each sequence, uniform; where a sequence has
  // fewer, the rest is -1 (`causal`) or the lowest padded positions, and -1 behind padded_length (`paper`).
  virtual at::Tensor sampled_positions(int64_t layer, int64_t k, const ops::PackedLayout& layout) const = 0;
};

// Draws of training step `step` of the run with this seed; or, with training false, of evaluation: a fixed
// hash matrix (`causal`), or one that is fresh for each `step` (`paper`).
//
// The matrix is filled row by row from stream (hash_matrix, layer, step), in evaluation (eval_hash_matrix,
// layer, step, or step 0 when fixed). The noise of position p of sequence b is word p of stream
// (ranking_sample, layer, step, index b); the k positions with the largest noise are taken, the lower
// position first among equals, and listed from the largest noise down. Only the highest `noise_bits` bits of
// a word count: with 8, the steps of bf16 numbers below 1, ties decide half the draws.
class PhiloxDraws : public Draws {
 public:
  PhiloxDraws(uint64_t seed, uint32_t step, bool training, bool fixed_eval_hash, bool fill_with_pad,
              int noise_bits = 32);
  bool training() const override { return training_; }
  at::Tensor hash_matrix(int64_t layer, int64_t d, int64_t h) const override;
  at::Tensor sampled_positions(int64_t layer, int64_t k, const ops::PackedLayout& layout) const override;

 private:
  uint64_t seed_;
  uint32_t step_;
  bool training_, fixed_eval_hash_, fill_with_pad_;
  int noise_bits_;
};

}  // namespace hax
