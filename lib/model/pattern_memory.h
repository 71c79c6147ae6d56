// What a pattern of the sparse branch remembers between two tokens of a sequence: enough to say which keys
// the next query may attend to, and which keys no later query can reach any more (spec sections 3 and 3.1,
// `causal`).
//
//   sliding_window, sink, dilated, full: nothing; positions say it
//   lsh: running sums of K and Q for centring, and of each bin the last `share` positions
//   key_selection: the running sum of Q, and the running top-k with its scores; an evicted key never returns
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lib/model/decoding.h"
#include "lib/model/draws.h"
#include "lib/ops/key_scores.h"

namespace hax {

// What one token changes for one pattern.
struct Reach {
  std::vector<int64_t> attended;  // positions that its query may attend to, its own perhaps among them
  std::vector<int64_t> dropped;   // held positions, its own perhaps among them, that no later query can reach
};

class PatternMemory {
 public:
  virtual ~PatternMemory() = default;
  // The token at `position` (0, 1, 2, ... in turn) with its scaled key and its query, (1, d_qk).
  virtual Reach arrive(int64_t position, const at::Tensor& K, const at::Tensor& Q) = 0;
  virtual StateBytes bytes() const { return {}; }
};

// `share`: the pattern's keys a query. `mlp` is copied, by reference to its tensors.
std::unique_ptr<PatternMemory> make_pattern_memory(PatternKind kind, int64_t share, const ModelConfig& config,
                                                   int64_t layer, const ops::ScoreMlp& mlp, const Draws& draws,
                                                   const at::TensorOptions& options);

}  // namespace hax
