#include "lib/check/recurrence.h"

#include <algorithm>

#include "lib/base/random.h"
#include "lib/check/probe.h"
#include "lib/config/names.h"
#include "lib/ops/selective_scan.h"
#include "lib/ops/ssd.h"

namespace hax {
namespace {

constexpr int64_t kDecodedTokens = 256;
constexpr double kDecodingTolerance = 1e-9, kScanTolerance = 1e-4;

// fp64 N(0, 1) from consecutive streams.
struct Normals {
  uint32_t next = 0;
  at::Tensor operator()(at::IntArrayRef sizes) {
    at::Tensor tensor = at::empty(sizes, at::TensorOptions().dtype(at::kDouble));
    RandomStream random({.seed = 1, .purpose = Purpose::test, .index = next++});
    double* data = tensor.mutable_data_ptr<double>();
    for (int64_t i = 0; i < tensor.numel(); ++i) data[i] = random.normal();
    return tensor;
  }
};

// Two sequences, longer and shorter than a chunk.
ops::PackedLayout scan_layout(at::Device device) { return ops::make_layout({0, 150, 187}, 0, device); }

double ssd_difference(const ModelConfig& config, at::Device device) {
  const int64_t T = 187, H = config.n_heads, G = config.n_groups, N = config.d_state;
  Normals normal;
  const auto inputs = [&](at::ScalarType type) {
    normal.next = 0;
    const auto draw = [&](at::IntArrayRef sizes) { return normal(sizes).to(device, type); };
    const at::Tensor x = draw({T, H, config.head_dim()}), dt = draw({T, H}), B = draw({T, G, N}),
                     C = draw({T, G, N}), D = draw({H}), dt_bias = draw({H});
    return ops::SsdInputs{x, dt, -at::arange(1, H + 1, x.options()), B, C, D, dt_bias};
  };
  const auto layout = scan_layout(device);
  return relative_difference(ops::ssd(inputs(at::kFloat), layout, config.chunk_size),
                             ops::ssd(inputs(at::kDouble), layout, config.chunk_size, ops::Path::reference));
}

double selective_scan_difference(const ModelConfig& config, at::Device device) {
  const int64_t T = 187, d = config.d_inner(), N = config.d_state;
  Normals normal;
  const auto inputs = [&](at::ScalarType type) {
    normal.next = 0;
    const auto draw = [&](at::IntArrayRef sizes) { return normal(sizes).to(device, type); };
    const at::Tensor u = draw({T, d}), delta = draw({T, d}), B = draw({T, N}), C = draw({T, N}),
                     D = draw({d}), dt_bias = draw({d});
    return ops::SelectiveScanInputs{u, delta,  -at::arange(1, N + 1, u.options()).repeat({d, 1}), B, C,
                                    D, dt_bias};
  };
  const auto layout = scan_layout(device);
  return relative_difference(ops::selective_scan(inputs(at::kFloat), layout),
                             ops::selective_scan(inputs(at::kDouble), layout, ops::Path::reference));
}

}  // namespace

CheckResult check_decoding(const LanguageModel& given, const Batch& batch) {
  CheckResult result{"decoding", Verdict::pass, ""};
  const std::string fault = decoding_fault(given.config());
  if (!fault.empty()) return {result.name, Verdict::skipped, fault};
  const at::NoGradGuard no_grad;
  const LanguageModel model = copy_of(given, at::kDouble);
  const ModelInput input = probe_input(batch, 1, kDecodedTokens, model.device());
  const PhiloxDraws draws = probe_draws(model.config(), false);
  const at::Tensor packed = model.forward(input, draws, at::kDouble).logits;
  DecodingState state = model.initial_state(draws, at::kDouble);
  std::vector<at::Tensor> logits;
  const at::Tensor tokens = input.tokens.to(at::kCPU);
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    logits.push_back(model.step(tokens[i].item<int64_t>(), state));
    const double difference = relative_difference(logits.back(), packed[i]);
    if (!(difference <= kDecodingTolerance)) {
      result.verdict = Verdict::fail;
      result.detail =
          "decoding leaves the forward pass at token " + std::to_string(i) + " by " + in_words(difference);
      return result;
    }
  }
  result.detail = "token by token over " + std::to_string(tokens.size(0)) +
                  " tokens in fp64: logits differ by " +
                  in_words(relative_difference(at::stack(logits), packed)) + " at most";
  return result;
}

CheckResult check_scans(const ModelConfig& config, at::Device device) {
  CheckResult result{"scan", Verdict::skipped, "the model has no scan"};
  const at::NoGradGuard no_grad;
  const auto judge = [&](MixerKind kind, double difference) {
    if (result.verdict == Verdict::skipped) result = {result.name, Verdict::pass, ""};
    if (!(difference <= kScanTolerance)) result.verdict = Verdict::fail;
    result.detail += (result.detail.empty() ? "" : "; ") + std::string(name_of(kind)) +
                     ": fp32 as in training and the recurrence in fp64 differ by " + in_words(difference);
  };
  if (config.has_mixer(MixerKind::mamba2)) judge(MixerKind::mamba2, ssd_difference(config, device));
  if (config.has_mixer(MixerKind::mamba)) judge(MixerKind::mamba, selective_scan_difference(config, device));
  return result;
}

}  // namespace hax
