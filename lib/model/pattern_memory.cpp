#include "lib/model/pattern_memory.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <unordered_map>

#include "lib/model/patterns.h"
#include "lib/ops/key_selection.h"

namespace hax {
namespace {

std::vector<int64_t> positions(int64_t first, int64_t last) {
  std::vector<int64_t> all(std::max<int64_t>(0, last - first + 1));
  std::iota(all.begin(), all.end(), first);
  return all;
}

at::TensorOptions statistics_options(const at::TensorOptions& options) {
  return options.dtype(options.dtype() == at::kDouble ? at::kDouble : at::kFloat);
}

class Full : public PatternMemory {
  Reach arrive(int64_t i, const at::Tensor&, const at::Tensor&) override { return {positions(0, i), {}}; }
};

class Window : public PatternMemory {
 public:
  explicit Window(int64_t width) : width_(width) {}
  Reach arrive(int64_t i, const at::Tensor&, const at::Tensor&) override {
    const int64_t first = i - width_ + 1;
    return {positions(std::max<int64_t>(0, first), i),
            first >= 0 ? std::vector{first} : std::vector<int64_t>{}};
  }

 private:
  int64_t width_;
};

class Sink : public PatternMemory {
 public:
  explicit Sink(int64_t width) : width_(width) {}
  Reach arrive(int64_t i, const at::Tensor&, const at::Tensor&) override {
    return {positions(0, std::min(i, width_ - 1)), i < width_ ? std::vector<int64_t>{} : std::vector{i}};
  }

 private:
  int64_t width_;
};

class Dilated : public PatternMemory {
 public:
  explicit Dilated(int64_t dilation) : dilation_(dilation) {}
  Reach arrive(int64_t i, const at::Tensor&, const at::Tensor&) override {
    Reach reach;
    for (int64_t j = dilation_ - 1; j <= i; j += dilation_) reach.attended.push_back(j);
    if ((i + 1) % dilation_ != 0) reach.dropped.push_back(i);
    return reach;
  }

 private:
  int64_t dilation_;
};

class Lsh : public PatternMemory {
 public:
  Lsh(int64_t share, const SparseConfig& sparse, const at::Tensor& R)
      : share_(share),
        sparse_(sparse),
        R_(R),
        sum_K_(at::zeros({1, R.size(0)}, R.options())),
        sum_Q_(sum_K_.clone()) {}

  Reach arrive(int64_t i, const at::Tensor& K, const at::Tensor& Q) override {
    Reach reach;
    const int64_t query_bin = bin(centred(Q, sum_Q_, i)), key_bin = bin(centred(K, sum_K_, i));
    auto& own = bins_[key_bin];
    own.push_back(i);
    if (static_cast<int64_t>(own.size()) > share_) {
      reach.dropped.push_back(own.front());
      own.erase(own.begin());
    }
    const auto asked = bins_.find(query_bin);
    if (asked != bins_.end()) reach.attended = asked->second;
    return reach;
  }

  StateBytes bytes() const override {
    StateBytes bytes;
    if (sparse_.centring == Centring::running_mean) {
      bytes.recurrent = static_cast<int64_t>(sum_K_.nbytes() + sum_Q_.nbytes());
    }
    for (const auto& [bin, held] : bins_)
      bytes.kept_keys += static_cast<int64_t>(held.size() * sizeof(int64_t));
    return bytes;
  }

 private:
  at::Tensor centred(const at::Tensor& x_in, at::Tensor& sum, int64_t i) const {
    const at::Tensor x = x_in.to(R_.scalar_type());
    if (sparse_.centring == Centring::none) return x;
    sum.add_(x);
    return x - sum / static_cast<double>(i + 1);
  }
  int64_t bin(const at::Tensor& x) const { return hash_bins(sparse_, x.mm(R_)).item<int64_t>(); }

  int64_t share_;
  const SparseConfig sparse_;
  at::Tensor R_;                                            // (d_qk, h)
  at::Tensor sum_K_, sum_Q_;                                // (1, d_qk), fp32 or wider
  std::unordered_map<int64_t, std::vector<int64_t>> bins_;  // the last `share` positions of each, ascending
};

class KeySelection : public PatternMemory {
 public:
  KeySelection(int64_t share, const ops::ScoreMlp& mlp, const at::Tensor& zero_sum)
      : share_(share), mlp_(mlp), sum_Q_(zero_sum) {}

  Reach arrive(int64_t i, const at::Tensor& K, const at::Tensor& Q) override {
    sum_Q_.add_(Q);
    // The summary of a sum is the sum over its norm: a sequence of one token.
    const at::Tensor summary =
        ops::query_summary_causal(sum_Q_, ops::make_layout({0, 1}, 0, sum_Q_.device()));
    best_.push_back({mlp_.score(K, summary).item<double>(), i});
    Reach reach;
    if (static_cast<int64_t>(best_.size()) > share_) {
      // The lowest score goes, among equals the latest position.
      const auto worst = std::min_element(best_.begin(), best_.end(), [](const Entry& a, const Entry& b) {
        return a.score < b.score || (a.score == b.score && a.position > b.position);
      });
      reach.dropped.push_back(worst->position);
      best_.erase(worst);
    }
    for (const Entry& entry : best_) reach.attended.push_back(entry.position);
    return reach;
  }

  StateBytes bytes() const override {
    return {static_cast<int64_t>(sum_Q_.nbytes()), static_cast<int64_t>(best_.size() * sizeof(Entry))};
  }

 private:
  struct Entry {
    double score;
    int64_t position;
  };
  int64_t share_;
  const ops::ScoreMlp mlp_;
  at::Tensor sum_Q_;         // (1, d_qk), fp32 or wider
  std::vector<Entry> best_;  // ascending positions
};

}  // namespace

std::unique_ptr<PatternMemory> make_pattern_memory(PatternKind kind, int64_t share, const ModelConfig& config,
                                                   int64_t layer, const ops::ScoreMlp& mlp, const Draws& draws,
                                                   const at::TensorOptions& options) {
  const SparseConfig& sparse = config.sparse;
  const auto statistics = statistics_options(options);
  switch (kind) {
    case PatternKind::full:
      return std::make_unique<Full>();
    case PatternKind::sliding_window:
      return std::make_unique<Window>(share);
    case PatternKind::sink:
      return std::make_unique<Sink>(share);
    case PatternKind::dilated:
      return std::make_unique<Dilated>(dilation_of(sparse, share));
    case PatternKind::lsh:
      return std::make_unique<Lsh>(share, sparse,
                                   draws.hash_matrix(layer, config.d_qk(), sparse.hash_bits).to(statistics));
    case PatternKind::key_selection:
      return std::make_unique<KeySelection>(share, mlp, at::zeros({1, config.d_qk()}, statistics));
  }
  throw std::invalid_argument("unknown pattern " + std::to_string(static_cast<int>(kind)));
}

}  // namespace hax
