// Key selection: summaries, running top-k, ranking targets and loss.
#include "lib/ops/key_selection.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/ops/key_scores.h"
#include "tests/catch.h"
#include "tests/ops/key_sets.h"

namespace hax::test {
namespace {

using ops::Path;

TEST_CASE("the paper's query summary of bf16 rounds every partial sum") {
  const auto layout = test::layout_of({70, 3}, 90);
  const at::Tensor Q = test::random_normal({73, 4}, 1, at::kBFloat16) + 1;
  const at::Tensor summary = ops::query_summary_paper(Q, layout);
  CHECK(summary.scalar_type() == at::kBFloat16);
  int64_t same = 0, unlike_wide = 0;
  for (int64_t d = 0; d < 4; ++d) {
    std::vector<float> sums;
    at::BFloat16 sum = 0.0f;
    double wide = 0.0, square = 0.0;
    for (int64_t i = 0; i < 70; ++i) {
      const float q = Q[i][d].item<float>();
      sum = at::BFloat16(static_cast<float>(sum) + q);
      wide += q;
      unlike_wide += static_cast<float>(sum) != static_cast<float>(at::BFloat16(static_cast<float>(wide)));
      sums.push_back(sum);
      square += (i == 69 ? 21.0 : 1.0) * sums.back() * sums.back();  // 20 padded positions repeat the last
    }
    const float norm = at::BFloat16(static_cast<float>(std::sqrt(square)));
    for (int64_t i = 0; i < 70; ++i)
      same += summary[i][d].item<float>() == static_cast<float>(at::BFloat16(sums[i] / norm));
  }
  CHECK(same == 4 * 70);
  CHECK(unlike_wide > 100);
  CHECK(relative_error(summary, ops::query_summary_paper(Q, layout, Path::reference)) <= 1e-2);
}

TEST_CASE("ranking targets keep bf16, the ranking loss widens the pairs' differences") {
  const auto layout = test::layout_of({20, 5}, 30);
  const at::Tensor Q = test::random_normal({25, 4}, 1, at::kBFloat16),
                   K = test::random_normal({25, 4}, 2, at::kBFloat16);
  const at::Tensor sampled = at::tensor({3, 0, 19, 25, 4, 7, -1, 1}, at::kLong).view({2, 4});
  const at::Tensor pads = at::tensor({10, 25}, at::kLong);
  const at::Tensor targets = ops::ranking_targets(Q, K, sampled, pads, layout, at::kBFloat16);
  CHECK(targets.scalar_type() == at::kBFloat16);
  CHECK(relative_error(targets, ops::ranking_targets(Q.to(at::kDouble), K.to(at::kDouble), sampled, pads,
                                                     layout, at::kDouble, Path::reference)) <= 8e-3);
  CHECK(relative_error(targets, ops::ranking_targets(Q, K, sampled, pads, layout, at::kBFloat16,
                                                     Path::reference)) <= 8e-3);
  const at::Tensor scores = test::random_normal({2, 4}, 3, at::kBFloat16), valid = sampled >= 0;
  const at::Tensor loss = ops::ranking_loss(scores, targets, valid);
  CHECK(loss.scalar_type() == at::kFloat);
  CHECK(relative_error(loss, ops::ranking_loss(scores.to(at::kDouble), targets, valid)) <= 4e-3);
}

TEST_CASE("Query summaries: kernel, composite and reference") {
  for (const auto& layout : {layout_of({1, 5, 70, 33}, 90), layout_of({7, 7}), layout_of({1})}) {
    const at::Tensor Q = random_normal({layout.total(), 10}, 1), narrow = Q.to(at::kFloat);
    const at::Tensor causal = ops::query_summary_causal(Q, layout, Path::reference);
    CHECK(relative_error(ops::query_summary_causal(Q, layout), causal) <= 1e-13);
    CHECK(relative_error(ops::query_summary_causal(narrow, layout), causal) <= 3e-6);
    CHECK(relative_error(ops::query_summary_causal(narrow, layout, Path::composite), causal) <= 3e-6);
    CHECK((causal.norm(2, 1) - 1).abs().max().item<double>() <= 1e-12);
    const at::Tensor paper = ops::query_summary_paper(Q, layout, Path::reference);
    CHECK(relative_error(ops::query_summary_paper(Q, layout), paper) <= 1e-13);
    CHECK(relative_error(ops::query_summary_paper(narrow, layout), paper) <= 3e-6);
  }
}

TEST_CASE("The running top-k keeps the k best of every prefix, earlier positions first among equals") {
  const auto layout = layout_of({1, 40, 3, 25});
  for (int64_t levels : {1, 4, 1000}) {  // all scores equal, many equal, few equal
    const at::Tensor scores = random_below(levels, {layout.total()}, 2).to(at::kFloat);
    const float* s = scores.data_ptr<float>();
    for (int64_t k : {1, 3, 16, 100}) {
      CAPTURE(levels, k);
      const auto membership = ops::cumulative_topk(scores, k, layout);
      CHECK(membership.evicted.equal(ops::cumulative_topk(scores, k, layout, Path::reference).evicted));
      for (int64_t max_pairs : {1, 700, 100000}) {
        CHECK(membership.evicted.equal(
            ops::cumulative_topk(scores, k, layout, Path::composite, max_pairs).evicted));
      }
      const ops::KeySet keys{{membership}};
      bool same = true;
      for (int64_t b = 0; b < layout.batch(); ++b) {
        for (int64_t i = 0; i < layout.seqlen(b); ++i) {
          std::vector<int64_t> order(i + 1);
          std::iota(order.begin(), order.end(), 0);
          const float* score = s + layout.offsets[b];
          std::stable_sort(order.begin(), order.end(),
                           [&](int64_t a, int64_t c) { return score[a] > score[c]; });
          for (int64_t place = 0; place <= i; ++place) {
            same &= ops::allowed(keys, layout, b, i, order[place]) == (place < k);
          }
        }
      }
      CHECK(same);
    }
  }
  CHECK_THROWS_AS(ops::cumulative_topk(at::zeros({69}), 0, layout), std::invalid_argument);
}

TEST_CASE("Ranking targets: kernel, composite and reference, with padded and missing samples") {
  const auto layout = layout_of({30, 3, 1}, 34);
  const at::Tensor Q = random_normal({34, 6}, 3), K = random_normal({34, 6}, 4);
  const at::Tensor sampled =
      at::tensor(std::vector<int64_t>{29, 0, 7, 12, 2, 0, 3, 33, 0, -1, -1, -1}, at::kLong).view({3, 4});
  for (const auto& pads : {std::vector<int64_t>{4, 31, 33}, {0, 31, 0}}) {
    const at::Tensor pad_queries = at::tensor(pads, at::kLong);
    const at::Tensor exact =
        ops::ranking_targets(Q, K, sampled, pad_queries, layout, at::kDouble, Path::reference);
    CHECK(relative_error(ops::ranking_targets(Q, K, sampled, pad_queries, layout, at::kDouble), exact) <=
          1e-13);
    for (Path path : {Path::automatic, Path::composite}) {
      CHECK(relative_error(ops::ranking_targets(Q.to(at::kFloat), K.to(at::kFloat), sampled, pad_queries,
                                                layout, at::kFloat, path),
                           exact) <= 2e-6);
    }
    CHECK(exact[2][1].item<double>() == 0);
    // The padded key at position 33 of 34 is seen by itself alone.
    CHECK(exact[1][3].item<double>() == 0.5);
  }
}

TEST_CASE("Features of sampled, padded and missing positions") {
  const auto layout = layout_of({4, 2}, 8);
  const at::Tensor K = random_normal({6, 3}, 41), summary = random_normal({6, 3}, 42);
  const at::Tensor sampled = at::tensor({2, 0, 7, 1, 2, -1}, at::kLong).view({2, 3});
  const at::Tensor features = ops::sampled_features(K, summary, sampled, layout, at::kDouble);
  const at::Tensor none = at::zeros({3}, at::kDouble);
  const std::vector<std::pair<at::Tensor, at::Tensor>> expected = {
      {K[2], summary[2]}, {K[0], summary[0]}, {none, summary[3]},  // position 7 is padded
      {K[5], summary[5]}, {none, summary[5]}, {K[4], summary[4]}};
  for (int64_t i = 0; i < 6; ++i) {
    CAPTURE(i);
    CHECK(features[i].equal(at::cat({expected[i].first, expected[i].second})));
  }
}

double loss_by_definition(const at::Tensor& scores, const at::Tensor& targets, const at::Tensor& valid) {
  const auto s = scores.accessor<double, 2>(), y = targets.accessor<double, 2>();
  const auto v = valid.accessor<bool, 2>();
  double sum = 0, pairs = 0;
  for (int64_t b = 0; b < s.size(0); ++b) {
    for (int64_t j = 0; j < s.size(1); ++j) {
      for (int64_t l = 0; l < s.size(1); ++l) {
        if (!v[b][j] || !v[b][l]) continue;
        const double t = 0.5 * ((y[b][j] > y[b][l]) + (y[b][j] >= y[b][l]));
        const double x = s[b][j] - s[b][l];
        sum += -t * std::log(1 / (1 + std::exp(-x))) - (1 - t) * std::log(1 / (1 + std::exp(x)));
        pairs += 1;
      }
    }
  }
  return sum / pairs;
}

TEST_CASE("The ranking loss and its gradient") {
  const at::Tensor scores = random_normal({3, 5}, 5), targets = random_below(4, {3, 5}, 6).to(at::kDouble);
  const at::Tensor valid = random_below(4, {3, 5}, 7) > 0;
  const at::Tensor all = at::ones({3, 5}, at::kBool);
  for (const auto& which : {valid, all}) {
    const TensorFunction loss = [&](const Tensors& in) { return ops::ranking_loss(in[0], targets, which); };
    const auto actual = output_and_gradients(loss, {scores}, {});
    CHECK(actual[0].item<double>() == Approx(loss_by_definition(scores, targets, which)).epsilon(1e-12));
    CHECK(relative_error(actual[1], output_and_differences(loss, {scores}, {})[1]) <= 1e-8);
  }
  const at::Tensor none = ops::ranking_loss(scores, targets, at::zeros({3, 5}, at::kBool));
  CHECK(none.item<double>() == 0.0);
}

TEST_CASE("Key selection on a GPU is that on the CPU", "[gpu]") {
  const auto lengths = random_lengths(9, 300, 8);
  const auto layout = layout_of(lengths, 310), device_layout = layout_of(lengths, 310, at::kCUDA);
  const auto there = [](const at::Tensor& x) { return x.to(at::kCUDA); };
  const at::Tensor Q = random_normal({layout.total(), 16}, 9, at::kFloat);
  const at::Tensor K = random_normal({layout.total(), 16}, 10, at::kFloat);
  CHECK(relative_error(ops::query_summary_causal(there(Q), device_layout),
                       ops::query_summary_causal(Q, layout)) <= 5e-6);
  CHECK(relative_error(ops::query_summary_paper(there(Q), device_layout),
                       ops::query_summary_paper(Q, layout)) <= 5e-6);
  const at::Tensor scores = random_below(50, {layout.total()}, 11).to(at::kFloat);
  for (int64_t k : {1, 16, 400}) {
    CHECK(ops::cumulative_topk(there(scores), k, device_layout)
              .evicted.cpu()
              .equal(ops::cumulative_topk(scores, k, layout).evicted));
  }
  const at::Tensor sampled = random_below(300, {9, 8}, 12) - 1;
  const at::Tensor pads = 310 - layout.cu_seqlens.diff();
  const at::Tensor targets = ops::ranking_targets(Q, K, sampled, pads, layout, at::kFloat);
  CHECK(relative_error(
            ops::ranking_targets(there(Q), there(K), there(sampled), there(pads), device_layout, at::kFloat),
            targets) <= 5e-6);
  const auto without_pads = [&](const at::Tensor& none) {
    return ops::ranking_targets(there(Q), there(K), there(sampled), none, device_layout, at::kFloat).cpu();
  };
  CHECK(bitwise_equal(without_pads({}), without_pads(there(pads) * 0)));
}

double share_equal(const at::Tensor& a, const at::Tensor& b) {
  return a.cpu().eq(b.cpu()).to(at::kDouble).mean().item<double>();
}

TEST_CASE("Key selection of the paper in bf16 on a GPU rounds as on the CPU", "[gpu]") {
  const std::vector<int64_t> lengths = {1, 300, 64, 31, 2, 129};
  const auto layout = layout_of(lengths, 310), device_layout = layout_of(lengths, 310, at::kCUDA);
  const auto there = [](const at::Tensor& x) { return x.to(at::kCUDA); };
  for (int64_t d : {5, 16, 33, 256}) {
    CAPTURE(d);
    const at::Tensor Q = random_normal({layout.total(), d}, 21, at::kBFloat16) + 0.5;
    // Partial sums are bits for bits those of the CPU; a norm may round the other way.
    CHECK(share_equal(ops::query_summary_paper(there(Q), device_layout),
                      ops::query_summary_paper(Q, layout)) >= 0.98);
    const at::Tensor exact = Q.to(at::kFloat);
    CHECK(relative_error(ops::query_summary_paper(there(exact), device_layout),
                         ops::query_summary_paper(exact.to(at::kDouble), layout)) <= 5e-6);
  }
  for (int64_t d : {7, 16, 32}) {
    CAPTURE(d);
    const at::Tensor Q = random_normal({layout.total(), d}, 22, at::kBFloat16);
    const at::Tensor K = random_normal({layout.total(), d}, 23, at::kBFloat16);
    const at::Tensor sampled = random_below(309, {6, 40}, 24) - 1, pads = 310 - layout.cu_seqlens.diff();
    const at::Tensor rounded =
        ops::ranking_targets(there(Q), there(K), there(sampled), there(pads), device_layout, at::kBFloat16);
    CHECK(rounded.scalar_type() == at::kBFloat16);
    const at::Tensor expected = ops::ranking_targets(Q, K, sampled, pads, layout, at::kBFloat16);
    CHECK(share_equal(rounded, expected) >= 0.95);
    CHECK(relative_error(rounded, expected) <= 4e-3);
    const at::Tensor wide =
        ops::ranking_targets(there(Q), there(K), there(sampled), there(pads), device_layout, at::kFloat);
    CHECK(relative_error(wide, ops::ranking_targets(Q, K, sampled, pads, layout, at::kFloat)) <= 5e-6);
  }
  // Few levels, so that many are equal; sequences beyond some length do without the comparison of all pairs.
  for (const auto& many : {lengths, std::vector<int64_t>{5000, 1, 33}}) {
    const auto here = layout_of(many), on_device = layout_of(many, 0, at::kCUDA);
    for (auto type : {at::kBFloat16, at::kFloat}) {
      const at::Tensor scores = random_below(50, {here.total()}, 25).to(type) - 25;
      for (int64_t k : {1, 16, 33, 250}) {
        CAPTURE(many.size(), k);
        CHECK(ops::cumulative_topk(there(scores), k, on_device)
                  .evicted.cpu()
                  .equal(ops::cumulative_topk(scores, k, here).evicted));
      }
    }
  }
}

TEST_CASE("The score MLP on a GPU: types of summaries and of weights", "[gpu]") {
  const auto layout = layout_of({70, 1, 129}, 0, at::kCUDA);
  for (int64_t d : {8, 16, 32, 64}) {
    for (auto summary_type : {at::kFloat, at::kBFloat16}) {
      for (auto weight_type : {at::kFloat, at::kBFloat16}) {
        CAPTURE(d, at::toString(summary_type), at::toString(weight_type));
        const auto random = [&](at::IntArrayRef sizes, uint32_t seed, at::ScalarType type, double scale) {
          return (random_normal(sizes, seed) * scale).to(at::kCUDA, type);
        };
        const double scale = 1 / std::sqrt(2.0 * static_cast<double>(d));
        const ops::ScoreMlp mlp{
            random({2 * d, 2 * d}, 1, weight_type, scale), random({2 * d}, 2, weight_type, 1),
            random({2 * d, 2 * d}, 3, weight_type, scale), random({2 * d}, 4, weight_type, 1),
            random({1, 2 * d}, 5, weight_type, scale),     random({1}, 6, weight_type, 1)};
        const at::Tensor K = random({layout.total(), d}, 7, at::kBFloat16, 1),
                         summary = random({layout.total(), d}, 8, summary_type, 1);
        const at::Tensor scores = ops::key_scores(K, summary, mlp, layout);
        CHECK(scores.scalar_type() == weight_type);
        CHECK(relative_error(scores, ops::key_scores(K, summary, mlp, layout, Path::composite)) <= 1e-2);
        // A sum in another order may round a hidden feature the other way.
        if (weight_type == at::kBFloat16)
          CHECK(share_equal(scores, ops::key_scores(K, summary, mlp, layout, Path::composite)) >= 0.8);
      }
    }
  }
}

}  // namespace
}  // namespace hax::test
