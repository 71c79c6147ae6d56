#include "lib/check/probe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

namespace hax {
namespace {

bool same(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() == b.defined() && (!a.defined() || a.equal(b));
}

}  // namespace

LanguageModel copy_of(const LanguageModel& model, at::ScalarType dtype) {
  LanguageModel copy(model.config(), model.data(), 0, model.device(), dtype);
  const at::NoGradGuard no_grad;
  copy.parameters().flat().copy_(model.parameters().flat());
  return copy;
}

ModelInput probe_input(const Batch& batch, int64_t sequences, int64_t max_tokens, at::Device device) {
  Batch cut;
  cut.padded_length = batch.padded_length;
  cut.cu_seqlens = {0};
  for (int64_t b = 0; b < std::min(sequences, batch.size()); ++b) {
    const auto first = batch.tokens.begin() + batch.cu_seqlens[b];
    const int64_t n = std::min<int64_t>(max_tokens, batch.cu_seqlens[b + 1] - batch.cu_seqlens[b]);
    for (int64_t i = 0; i < n; ++i) {
      cut.scored.push_back(static_cast<int32_t>(cut.tokens.size()));
      cut.tokens.push_back(first[i]);
      cut.targets.push_back(first[(i + 1) % n]);
    }
    cut.cu_seqlens.push_back(static_cast<int32_t>(cut.tokens.size()));
  }
  return to_device(cut, device);
}

PhiloxDraws probe_draws(const ModelConfig& config, bool training) {
  return PhiloxDraws(1, 0, training, /*fixed_eval_hash=*/true,
                     /*fill_with_pad=*/config.mode == Statistics::paper);
}

double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0) return 0.0;
  const at::Tensor x = a.detach().to(at::kDouble), y = b.detach().to(at::kDouble);
  const double difference = (x - y).abs().max().item<double>(), scale = y.abs().max().item<double>();
  if (difference == 0.0) return 0.0;
  return std::isfinite(difference) && scale > 0.0 ? difference / scale
                                                  : std::numeric_limits<double>::infinity();
}

bool same_choices(const std::vector<BranchOutput>& a, const std::vector<BranchOutput>& b) {
  for (size_t layer = 0; layer < a.size(); ++layer) {
    for (size_t i = 0; i < a[layer].records.size(); ++i) {
      const PatternRecord &x = a[layer].records[i], &y = b.at(layer).records.at(i);
      if (!same(x.query_bin, y.query_bin) || !same(x.key_bin, y.key_bin)) return false;
      for (size_t m = 0; m < x.keys.memberships.size(); ++m) {
        const auto* p = std::get_if<ops::TopkMembership>(&x.keys.memberships[m]);
        const auto* q = std::get_if<ops::TopkMembership>(&y.keys.memberships.at(m));
        if (p && q && !same(p->evicted, q->evicted)) return false;
      }
    }
  }
  return true;
}

bool attends_to_all(const BranchOutput& branch, const ops::PackedLayout& layout) {
  if (branch.records.empty()) return false;
  ops::KeySet all;
  for (const auto& record : branch.records) {
    if (record.keys.empty_row != ops::EmptyRow::uniform) return false;
    const auto& own = record.keys.memberships;
    all.memberships.insert(all.memberships.end(), own.begin(), own.end());
  }
  return !ops::to_packed(ops::allowed_mask(all, layout).any(2), layout).all().item<bool>();
}

std::string in_words(double value, int digits) {
  std::ostringstream text;
  text.precision(digits);
  text << value;
  return text.str();
}

}  // namespace hax
