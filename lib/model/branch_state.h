// What the sparse branch remembers of one sequence while decoding: a memory for each pattern, and the keys
// and values that any of them can still reach, each once.
#pragma once

#include <memory>
#include <vector>

#include "lib/model/key_cache.h"
#include "lib/model/pattern_memory.h"

namespace hax {

struct BranchState {
  BranchState(int64_t d_qk, int64_t d_inner, const at::TensorOptions& options)
      : cache(d_qk, d_inner, options) {}

  int64_t position = 0;  // of the next token
  std::vector<std::unique_ptr<PatternMemory>> memories;
  KeyCache cache;

  // The next token's scaled key and query (1, d_qk) and value (1, d_inner) -> softmax attention over the
  // union of what the patterns allow, (1, d_inner) in V's dtype; zero where they allow nothing. Arithmetic in
  // at least fp32.
  at::Tensor attend(const at::Tensor& K, const at::Tensor& Q, const at::Tensor& V);
  StateBytes bytes() const;
};

}  // namespace hax
