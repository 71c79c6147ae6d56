// The sparse attention branch that Mamba and Mamba2 share (spec sections 2.1, 2.2, 3):
//   [K, Q] = W_xx u;  K <- K / sqrt(d_qk);  O = sparse_attention(Q, K, u; union of the patterns)
// The mixer adds O * E (lib/ops/gate.h).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/config/config.h"
#include "lib/model/branch_state.h"
#include "lib/model/draws.h"
#include "lib/model/parameters.h"
#include "lib/ops/key_set.h"
#include "lib/ops/keys_queries.h"
#include "lib/ops/lanes.h"

namespace hax {

// What one pattern decided, kept for tests, `hax inspect` and error anatomy.
struct PatternRecord {
  PatternKind kind;
  ops::KeySet keys;                             // this pattern alone
  at::Tensor query_bin, key_bin;                // lsh (T)
  at::Tensor query_projection, key_projection;  // lsh (T, h)
  at::Tensor summary, scores;                   // key_selection (T, d_qk), (T)
  at::Tensor sampled, targets;                  // key_selection while training (B, share of k)
};

struct BranchOutput {
  at::Tensor attended;  // (T, d_inner): O
  at::Tensor E;         // (d_inner)
  // Scalar ranking loss, undefined when there is none (no key_selection, or not training). On kPatientLane:
  // in a LaneScope to be read there, or after LaneScope::join_all.
  at::Tensor aux_loss;
  at::Tensor K, Q;  // (T, d_qk), K scaled
  std::vector<PatternRecord> records;
};

// The branch from K (scaled), Q (T, d_qk) and V (T, d_inner) on: everything but W_xx and E, which
// stays undefined. `mlp` is read by key_selection alone. R: what draws.hash_matrix gives, where it was asked
// for already. Throws std::invalid_argument when a pattern's share of k is 0.
BranchOutput branch_attention(const ModelConfig& config, int64_t layer, const at::Tensor& K,
                              const at::Tensor& Q, const at::Tensor& V, const ops::ScoreMlp& mlp,
                              const ops::PackedLayout& layout, const Draws& draws, const at::Tensor& R = {});

// What the names of the score MLP's parameters begin with, behind the mixer's prefix. The ranking loss alone
// trains them.
constexpr std::string_view kScoreMlpName = "dx_proj_";

class SparseBranch {
 public:
  // Registers {prefix}E, {prefix}xx_proj.weight, and for key_selection {prefix}dx_proj_{1,2,3}.{weight,bias}.
  // Their places among the layer's initial values start at kFirstPlace.
  static constexpr uint32_t kFirstPlace = 16;
  SparseBranch(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
               ParameterSet& parameters);

  // u (T, d_inner), in the compute dtype. V: u as the values, which may be a tensor of its own so that their
  // gradient arrives apart. `beside` is called meanwhile: work that needs nothing from the branch, and may
  // run at the same time (ops::Lane).
  BranchOutput forward(const at::Tensor& u, const at::Tensor& V, const ops::PackedLayout& layout,
                       const Draws& draws, const std::function<void()>& beside) const;
  // Decoding (lib/model/decoding.h): u (1, d_inner) of the next token -> O * E, (1, d_inner).
  std::unique_ptr<BranchState> initial_state(const Draws& draws, at::ScalarType compute) const;
  at::Tensor step(const at::Tensor& u, BranchState& state) const;

 private:
  bool has(PatternKind kind) const;
  ops::KeysQueries project(const at::Tensor& u) const;
  ops::ScoreMlp score_mlp() const;  // empty without key_selection

  const ModelConfig config_;
  int64_t layer_;
  const Parameter *E_, *xx_proj_;
  std::vector<const Parameter*> mlp_;  // w1, b1, w2, b2, w3, b3, or nothing
};

}  // namespace hax
