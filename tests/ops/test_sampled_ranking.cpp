#include "lib/ops/sampled_ranking.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "lib/ops/fallback.h"
#include "lib/ops/key_selection.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax::test {
namespace {

using ops::Path;

struct Case {
  std::vector<int64_t> lengths;
  int64_t d, k;
};

// Samples from the padded part and missing ones among them; targets with equals.
struct Inputs {
  Inputs(const Case& c, at::ScalarType activations, at::ScalarType of_summary, at::ScalarType weights)
      : lengths(c.lengths),
        K(random_normal({total(), c.d + 6}, 1, activations).slice(1, 3, 3 + c.d)),
        summary(random_normal({total(), c.d}, 2, of_summary)),
        sampled(random_below(longest() + 4, {batch(), c.k}, 3) - 1),
        targets(random_below(20, {batch(), c.k}, 4).to(of_summary)) {
    const int64_t F = 2 * c.d;
    const double scale = 1 / std::sqrt(static_cast<double>(F));
    const auto add = [&](at::IntArrayRef sizes, uint32_t seed, double by) {
      mlp.push_back((random_normal(sizes, seed) * by).to(weights));
    };
    add({F, F}, 5, 2 * scale), add({F}, 6, 0.5), add({F, F}, 7, 2 * scale), add({F}, 8, 0.5);
    add({1, F}, 9, 2 * scale), add({1}, 10, 1);
  }
  int64_t batch() const { return static_cast<int64_t>(lengths.size()); }
  int64_t total() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }
  int64_t longest() const { return *std::max_element(lengths.begin(), lengths.end()); }

  // The loss as a function of the weights, with everything else on their device.
  TensorFunction loss(at::Device device, at::ScalarType pairs, Path path) const {
    return [=, this](const Tensors& w) {
      return ops::sampled_ranking(K.to(device), summary.to(device), sampled.to(device), targets.to(device),
                                  {w[0], w[1], w[2], w[3], w[4], w[5]},
                                  layout_of(lengths, longest() + 4, device), pairs, path);
    };
  }

  std::vector<int64_t> lengths;
  at::Tensor K, summary, sampled, targets;
  Tensors mlp;
};

Tensors to(const Tensors& tensors, const at::TensorOptions& options) {
  Tensors out;
  for (const auto& t : tensors) out.push_back(t.to(options));
  return out;
}

const std::vector<Case> kCases = {{{1, 300, 64, 31, 2, 129}, 16, 32},
                                  {{5}, 4, 1},
                                  {{40, 7, 90}, 8, 33},
                                  {{200, 13}, 32, 64},
                                  {{33, 5}, 6, 70},
                                  {{64, 64}, 16, 300}};

}  // namespace

TEST_CASE("The ranking loss of sampled keys is that of the MLP's scores") {
  const Inputs in(kCases[0], at::kDouble, at::kDouble, at::kDouble);
  const auto layout = layout_of(in.lengths, in.longest() + 4);
  const ops::ScoreMlp mlp{in.mlp[0], in.mlp[1], in.mlp[2], in.mlp[3], in.mlp[4], in.mlp[5]};
  const at::Tensor features = ops::sampled_features(in.K, in.summary, in.sampled, layout, at::kDouble);
  const at::Tensor expected =
      ops::ranking_loss(mlp.score(features).view(in.sampled.sizes()), in.targets, in.sampled >= 0);
  const auto loss = in.loss(at::kCPU, at::kDouble, Path::automatic);
  const auto found = output_and_gradients(loss, in.mlp, {});
  CHECK(found[0].item<double>() == expected.item<double>());
  const auto differences = output_and_differences(loss, in.mlp, {});
  for (size_t i = 1; i < found.size(); ++i) {
    CAPTURE(i);
    // The last bias moves all scores alike: its gradient is zero.
    if (i < 6)
      CHECK(relative_error(found[i], differences[i]) <= 1e-6);
    else
      CHECK(found[i].abs().item<double>() <= 1e-12);
  }
}

// Cases of their own for each dtype of weights: the race detector takes minutes for one.
static void check_fused_loss(at::ScalarType weights) {
  for (const Case& c : kCases) {
    for (auto activations : {at::kFloat, at::kBFloat16}) {
      for (auto of_summary : {at::kFloat, at::kBFloat16}) {
        for (auto pairs : {at::kFloat, weights}) {
          CAPTURE(c.d, c.k, at::toString(activations), at::toString(of_summary), at::toString(weights),
                  at::toString(pairs));
          const Inputs in(c, activations, of_summary, weights);
          const auto exact = output_and_gradients(in.loss(at::kCPU, at::kDouble, Path::composite),
                                                  to(in.mlp, at::kDouble), {});
          const auto plain = output_and_gradients(in.loss(at::kCPU, pairs, Path::composite), in.mlp, {});
          const auto device_loss = in.loss(at::kCUDA, pairs, Path::automatic);
          const ops::FallbackWatch fallbacks;
          const auto found = output_and_gradients(device_loss, to(in.mlp, at::TensorOptions(at::kCUDA)), {});
          CHECK(fallbacks.seen().empty());
          CHECK(found[0].scalar_type() == at::kFloat);
          for (size_t i = 0; i < 6; ++i) {
            CAPTURE(i);
            if (i > 0) CHECK(found[i].scalar_type() == weights);
            const double tolerance =
                weights == at::kFloat ? 1e-5 : 1.5 * relative_error(plain[i], exact[i]) + 4e-3;
            CHECK(relative_error(found[i], exact[i]) <= tolerance);
          }
          CHECK(found[6].abs().max().item<double>() <= (weights == at::kFloat ? 1e-6 : 4e-3));
          const auto again = output_and_gradients(device_loss, to(in.mlp, at::TensorOptions(at::kCUDA)), {});
          for (size_t i = 0; i < found.size(); ++i) CHECK(bitwise_equal(found[i].cpu(), again[i].cpu()));
        }
      }
    }
  }
}

TEST_CASE("The fused ranking loss of sampled keys, with its gradients: weights in fp32", "[gpu]") {
  check_fused_loss(at::kFloat);
}
TEST_CASE("The fused ranking loss of sampled keys, with its gradients: weights in bf16", "[gpu]") {
  check_fused_loss(at::kBFloat16);
}

TEST_CASE("Ranking losses without a kernel, and without any pair", "[gpu]") {
  {
    const Inputs in({{40, 7}, 3, 5}, at::kFloat, at::kFloat, at::kFloat);
    const ops::FallbackWatch fallbacks;
    const at::Tensor found =
        in.loss(at::kCUDA, at::kFloat, Path::automatic)(to(in.mlp, at::TensorOptions(at::kCUDA)));
    CHECK(fallbacks.seen() == std::set<std::string>{"sampled_ranking: d_qk 3 with 5 samples has no kernel"});
    CHECK(relative_error(found, in.loss(at::kCPU, at::kFloat, Path::composite)(in.mlp)) <= 1e-5);
  }
  Inputs in(kCases[2], at::kBFloat16, at::kFloat, at::kFloat);
  in.sampled.fill_(-1);
  const auto found = output_and_gradients(in.loss(at::kCUDA, at::kFloat, Path::automatic),
                                          to(in.mlp, at::TensorOptions(at::kCUDA)), {});
  for (const auto& tensor : found) CHECK(tensor.abs().max().item<double>() == 0.0);
}

}  // namespace hax::test
