#include "lib/model/sparse_branch.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "lib/model/init.h"
#include "lib/model/patterns.h"
#include "lib/ops/key_selection.h"
#include "lib/ops/lanes.h"
#include "lib/ops/linear.h"
#include "lib/ops/lsh.h"
#include "lib/ops/sampled_ranking.h"
#include "lib/ops/sparse_attention.h"

namespace hax {
namespace {

// The branch runs beside the scan, a pattern beside the next, the ranking loss beside all that follows.
constexpr int kBranchLane = 0, kPatternLane = 1, kRankingLane = ops::kPatientLane;
static_assert(kPatternLane < ops::kUrgentLanes);

// One forward pass over the patterns. K and Q come detached: a membership is not differentiable, and the
// ranking loss trains the score MLP alone.
struct PatternPass {
  const ModelConfig& config;
  int64_t layer;
  const at::Tensor &K, &Q;
  const ops::ScoreMlp& mlp;
  const ops::PackedLayout& layout;
  const Draws& draws;
  at::Tensor R;         // undefined: still to be drawn
  at::Tensor aux_loss;  // made on kRankingLane
  int64_t share = 0;    // of the pattern that runs

  bool paper() const { return config.mode == Statistics::paper; }

  PatternRecord run(PatternKind kind, int64_t share_of_k) {
    share = share_of_k;
    PatternRecord record;
    record.kind = kind;
    record.keys.empty_row = paper() ? ops::EmptyRow::uniform : ops::EmptyRow::zero;
    record.keys.memberships.push_back(membership(record));
    return record;
  }

 private:
  ops::Membership membership(PatternRecord& record) {
    switch (record.kind) {
      case PatternKind::full:
        return ops::FullMembership{};
      case PatternKind::sliding_window:
        return ops::WindowMembership{share};
      case PatternKind::sink:
        return ops::SinkMembership{share};
      case PatternKind::dilated:
        return ops::DilatedMembership{dilation_of(config.sparse, share)};
      case PatternKind::lsh:
        return lsh(record);
      case PatternKind::key_selection:
        return key_selection(record);
    }
    throw std::invalid_argument("unknown pattern " + std::to_string(static_cast<int>(record.kind)));
  }

  ops::Membership lsh(PatternRecord& record) {
    if (!R.defined()) R = draws.hash_matrix(layer, K.size(1), config.sparse.hash_bits);
    const auto decision = ops::lsh(K, Q, R, hash_function(config), share, layout);
    record.query_projection = decision.query_projection;
    record.key_projection = decision.key_projection;
    record.query_bin = decision.membership.query_bin;
    record.key_bin = decision.membership.key_bin;
    return decision.membership;
  }

  ops::Membership key_selection(PatternRecord& record) {
    record.summary = paper() ? ops::query_summary_paper(Q, layout) : ops::query_summary_causal(Q, layout);
    record.scores = ops::key_scores(K, record.summary, mlp, layout);
    if (draws.training()) {
      ops::Lane ranking(kRankingLane, {K, Q, record.summary});
      rank(record);
      ranking.leave();
    }
    return ops::cumulative_topk(record.scores, share, layout);
  }

  // The ranking loss; the MLP runs again, with gradient, at the sampled positions.
  void rank(PatternRecord& record) {
    record.sampled = draws.sampled_positions(layer, share, layout);
    // `paper` takes its statistics in the activations' dtype, as the official code; `causal` in fp32 or
    // wider, and without padded queries.
    const auto wide = [](at::ScalarType type) { return at::promote_types(type, at::kFloat); };
    const auto of_weights = mlp.w1.scalar_type();
    const at::Tensor pad_queries = paper() ? layout.padded_length - layout.cu_seqlens.diff() : at::Tensor();
    record.targets = ops::ranking_targets(Q, K, record.sampled, pad_queries, layout,
                                          paper() ? Q.scalar_type() : wide(Q.scalar_type()));
    aux_loss = ops::sampled_ranking(K, record.summary, record.sampled, record.targets, mlp, layout,
                                    paper() ? of_weights : wide(of_weights));
  }
};

}  // namespace

BranchOutput branch_attention(const ModelConfig& config, int64_t layer, const at::Tensor& K,
                              const at::Tensor& Q, const at::Tensor& V, const ops::ScoreMlp& mlp,
                              const ops::PackedLayout& layout, const Draws& draws, const at::Tensor& R) {
  const SparseConfig& sparse = config.sparse;
  const at::Tensor keys = K.detach(), queries = Q.detach();
  PatternPass pass{config, layer, keys, queries, mlp, layout, draws, R, {}};
  BranchOutput out;
  ops::KeySet all;
  std::vector<std::unique_ptr<ops::Lane>> lanes;
  for (size_t i = 0; i < sparse.patterns.size(); ++i) {
    const int64_t share = sparse.share(i);
    if (share < 1) {
      throw std::invalid_argument("k = " + std::to_string(sparse.k) + " leaves no key for each of " +
                                  std::to_string(sparse.patterns.size()) + " patterns");
    }
    // The last pattern goes on where the attention follows.
    const bool last = i + 1 == sparse.patterns.size();
    if (!last) lanes.push_back(std::make_unique<ops::Lane>(kPatternLane, std::vector{keys, queries}));
    out.records.push_back(pass.run(sparse.patterns[i], share));
    if (!last) lanes.back()->leave();
    const ops::KeySet& part = out.records.back().keys;
    all.empty_row = part.empty_row;
    all.memberships.insert(all.memberships.end(), part.memberships.begin(), part.memberships.end());
  }
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i]->join(ops::tensors(all.memberships[i]));
  out.K = K;
  out.Q = Q;
  out.attended = ops::sparse_attention(Q, K, V, all, layout);
  out.aux_loss = pass.aux_loss;
  return out;
}

SparseBranch::SparseBranch(const ModelConfig& config, int64_t layer, uint64_t seed, const std::string& prefix,
                           ParameterSet& parameters)
    : config_(config), layer_(layer) {
  const int64_t d_inner = config.d_inner(), d = config.d_qk();
  uint32_t place = kFirstPlace;
  const auto linear = [&](int64_t out, int64_t in) {
    return init::normal({out, in}, config.init_std, init::Key{seed, layer, place++});
  };
  E_ = &parameters.add(prefix + "E", init::constant({d_inner}, 1.0));
  xx_proj_ = &parameters.add(prefix + "xx_proj.weight", linear(2 * d, d_inner));
  if (!has(PatternKind::key_selection)) return;
  for (int64_t i = 1; i <= 3; ++i) {
    const std::string name = prefix + std::string(kScoreMlpName) + std::to_string(i);
    const int64_t width = i < 3 ? 2 * d : 1;
    mlp_.push_back(&parameters.add(name + ".weight", linear(width, 2 * d)));
    mlp_.push_back(&parameters.add(name + ".bias", init::constant({width}, 0.0)));
  }
}

bool SparseBranch::has(PatternKind kind) const {
  const auto& patterns = config_.sparse.patterns;
  return std::find(patterns.begin(), patterns.end(), kind) != patterns.end();
}

ops::KeysQueries SparseBranch::project(const at::Tensor& u) const {
  return ops::keys_queries(ops::linear(u, xx_proj_->to(u.scalar_type())),
                           1 / std::sqrt(static_cast<double>(config_.d_qk())));
}

ops::ScoreMlp SparseBranch::score_mlp() const {
  if (mlp_.empty()) return {};
  return {*mlp_[0], *mlp_[1], *mlp_[2], *mlp_[3], *mlp_[4], *mlp_[5]};
}

BranchOutput SparseBranch::forward(const at::Tensor& u, const at::Tensor& V, const ops::PackedLayout& layout,
                                   const Draws& draws, const std::function<void()>& beside) const {
  // What hashes is drawn while the keys are projected.
  ops::Lane drawing(kPatternLane, {});
  const at::Tensor R = has(PatternKind::lsh)
                           ? draws.hash_matrix(layer_, config_.d_qk(), config_.sparse.hash_bits)
                           : at::Tensor();
  drawing.leave();
  ops::Lane lane(kBranchLane, {u, V});
  const auto [K, Q] = project(u);
  drawing.join({R});
  BranchOutput out = branch_attention(config_, layer_, K, Q, V, score_mlp(), layout, draws, R);
  lane.leave();
  beside();
  lane.join({out.attended});
  out.E = E_->wide();
  return out;
}

std::unique_ptr<BranchState> SparseBranch::initial_state(const Draws& draws, at::ScalarType compute) const {
  const std::string fault = decoding_fault(config_);
  if (!fault.empty()) throw std::invalid_argument("SparseBranch::initial_state: " + fault);
  const auto options = E_->value.options().dtype(compute);
  auto state = std::make_unique<BranchState>(config_.d_qk(), config_.d_inner(), options);
  const SparseConfig& sparse = config_.sparse;
  for (size_t i = 0; i < sparse.patterns.size(); ++i) {
    state->memories.push_back(make_pattern_memory(sparse.patterns[i], sparse.share(i), config_, layer_,
                                                  score_mlp(), draws, options));
  }
  return state;
}

at::Tensor SparseBranch::step(const at::Tensor& u, BranchState& state) const {
  const auto [K, Q] = project(u);
  return state.attend(K, Q, u) * E_->to(u.scalar_type());
}

}  // namespace hax
