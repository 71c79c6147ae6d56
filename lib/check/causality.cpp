#include "lib/check/causality.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/check/probe.h"
#include "lib/config/names.h"

namespace hax {
namespace {

// Rounding of fp32; a real leak changes far more.
constexpr double kTolerance = 1e-5;
constexpr int64_t kSequences = 2, kTokens = 256;

// (rows) of the positions up to `last`.
at::Tensor rows_up_to(int64_t last, const ops::PackedLayout& layout) {
  return at::nonzero(layout.position <= last).squeeze(1);
}

double change_at(const at::Tensor& rows, const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined()) return 0.0;
  const at::Tensor x = a.index_select(0, rows).to(at::kDouble), y = b.index_select(0, rows).to(at::kDouble);
  const double scale = a.to(at::kDouble).abs().max().item<double>();
  const double change = (x - y).abs().max().item<double>();
  if (!std::isfinite(change)) return std::numeric_limits<double>::infinity();
  return change == 0.0 ? 0.0 : change / scale;
}

// Share of the (query, key) pairs with queries up to `last` whose answer changed, or that allow a later key.
double mask_change(const ops::KeySet& a, const ops::KeySet& b, int64_t last,
                   const ops::PackedLayout& layout) {
  const at::Tensor x = ops::allowed_mask(a, layout).narrow(1, 0, std::min(last + 1, layout.max_seqlen));
  const at::Tensor y = ops::allowed_mask(b, layout).narrow(1, 0, x.size(1));
  const at::Tensor later = x.triu(1);
  return (x.logical_xor(y).logical_or_(later)).to(at::kDouble).mean().item<double>();
}

std::string in_text(const std::vector<Leak>& leaks) {
  std::string text;
  for (const auto& leak : leaks) {
    text += (text.empty() ? "" : "; ") + std::string("layer ") + std::to_string(leak.layer) + ": " +
            leak.part + " looks ahead (changes by " + in_words(leak.change) + ")";
  }
  return text;
}

}  // namespace

std::vector<Leak> layer_leaks(int64_t layer, const std::string& mixer, const LayerFunction& forward,
                              Statistics mode, const at::Tensor& x, const at::Tensor& other, int64_t last,
                              const ops::PackedLayout& layout) {
  const at::Tensor rows = rows_up_to(last, layout);
  const MixerOutput a = forward(x), b = forward(other);
  std::vector<Leak> leaks;
  for (size_t i = 0; i < a.branch.records.size(); ++i) {
    const PatternRecord &p = a.branch.records[i], &q = b.branch.records.at(i);
    double change = mask_change(p.keys, q.keys, last, layout);
    for (const auto member : {&PatternRecord::query_projection, &PatternRecord::key_projection,
                              &PatternRecord::summary, &PatternRecord::scores}) {
      change = std::max(change, change_at(rows, p.*member, q.*member));
    }
    const bool by_definition =
        mode == Statistics::paper && (p.kind == PatternKind::lsh || p.kind == PatternKind::key_selection);
    if (change > kTolerance) leaks.push_back({layer, std::string(name_of(p.kind)), by_definition, change});
  }
  const double change = change_at(rows, a.hidden, b.hidden);
  if (change <= kTolerance || !leaks.empty()) return leaks;
  if (attends_to_all(a.branch, layout)) {
    return {{layer, "queries without a key", mode == Statistics::paper, change}};
  }
  return {{layer, mixer, false, change}};
}

CheckResult check_causality(const LanguageModel& model, const Batch& batch) {
  const at::NoGradGuard no_grad;
  CheckResult result{"causality", Verdict::pass, ""};
  const ModelConfig& config = model.config();
  const ModelInput input = probe_input(batch, kSequences, kTokens, model.device());
  const ops::PackedLayout& layout = input.layout;
  const PhiloxDraws draws = probe_draws(config, /*training=*/false);
  const ModelOutput whole = model.forward(input, draws, at::kFloat);

  std::vector<Leak> leaks;
  double logit_change = 0.0, later_change = 0.0;
  for (const int64_t last : {layout.max_seqlen / 4, 3 * layout.max_seqlen / 4}) {
    ModelInput changed = input;
    const at::Tensor later = layout.position > last;
    const at::Tensor shift =
        at::arange(layout.total(), layout.position.options()) % (model.vocab_size() - 1) + 1;
    changed.tokens = at::where(later, (input.tokens + shift) % model.vocab_size(), input.tokens);
    const ModelOutput other = model.forward(changed, draws, at::kFloat);
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      const at::Tensor& x = whole.mixer_inputs.at(layer);
      const at::Tensor mixed = at::where(later.unsqueeze(1), other.mixer_inputs.at(layer), x);
      const auto forward = [&](const at::Tensor& rows) {
        return model.mixer(layer).forward(rows, layout, draws);
      };
      for (const Leak& leak : layer_leaks(layer, std::string(name_of(config.mixer_of(layer))), forward,
                                          config.mode, x, mixed, last, layout)) {
        const auto known = std::find_if(leaks.begin(), leaks.end(), [&](const Leak& l) {
          return l.layer == leak.layer && l.part == leak.part;
        });
        if (known == leaks.end()) leaks.push_back(leak);
      }
    }
    const at::Tensor rows = rows_up_to(last, layout);
    logit_change = std::max(logit_change, change_at(rows, whole.logits, other.logits));
    later_change = std::max(later_change, relative_difference(other.logits, whole.logits));
  }
  std::stable_sort(leaks.begin(), leaks.end(),
                   [](const Leak& a, const Leak& b) { return a.layer < b.layer; });

  const std::string compared = std::to_string(config.layers) + " layers and the logits over " +
                               std::to_string(layout.total()) + " tokens, later ones changed at two places";
  if (leaks.empty() && logit_change > kTolerance) {
    result.verdict = Verdict::fail;
    result.detail = "no mixer looks ahead, and yet earlier logits change by " + in_words(logit_change);
  } else if (later_change == 0.0) {
    result.verdict = Verdict::fail;
    result.detail = "the logits do not depend on the tokens at all";
  } else if (std::any_of(leaks.begin(), leaks.end(), [](const Leak& leak) { return !leak.expected; })) {
    result.verdict = Verdict::fail;
    result.detail = in_text(leaks);
  } else if (!leaks.empty()) {
    result.verdict = Verdict::expected_failure;
    result.detail = in_text(leaks) + ". By definition: " + decoding_fault(config);
  } else if (!decoding_fault(config).empty()) {
    result.verdict = Verdict::fail;
    result.detail = "nothing looks ahead in " + compared + ", but should: " + decoding_fault(config);
  } else {
    result.detail = compared + ": earlier ones change by " + in_words(logit_change) + " at most";
  }
  return result;
}

}  // namespace hax
