#include "lib/ops/keys_queries.h"

#include <cmath>
#include <limits>

#include "lib/ops/key_scores.h"
#include "lib/ops/lsh.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax::test {
namespace {

// K and Q side by side.
TensorFunction keys_queries_at(double scale) {
  return [scale](const Tensors& in) {
    const auto made = ops::keys_queries(in[0], scale);
    return at::cat({made.K, made.Q}, 1);
  };
}

}  // namespace

TEST_CASE("keys are scaled, queries are not, and so are their gradients") {
  const at::Tensor rows = random_normal({5, 6}, 1), upstream = random_normal({5, 6}, 2);
  const at::Tensor factor = at::tensor({0.3, 0.3, 0.3, 1.0, 1.0, 1.0}, at::kDouble);
  const auto found = output_and_gradients(keys_queries_at(0.3), {rows}, upstream);
  CHECK(relative_error(found[0], rows * factor) <= 1e-15);
  CHECK(relative_error(found[1], upstream * factor) <= 1e-15);
  CHECK_THROWS_AS(ops::keys_queries(at::ones({2, 3}), 1.0), std::invalid_argument);
}

TEST_CASE("keys and queries on a GPU are those on the CPU", "[gpu]") {
  for (auto type : {at::kFloat, at::kBFloat16}) {
    for (const auto& [rows, d] : {std::pair<int64_t, int64_t>{1, 8}, {333, 16}, {70, 40}, {9, 5}}) {
      CAPTURE(rows, d, at::toString(type));
      const at::Tensor wide = random_normal({rows, 2 * d + 8}, 3, type), x = wide.narrow(1, 8, 2 * d);
      const at::Tensor upstream = random_normal({rows, 2 * d}, 4, type);
      const auto f = keys_queries_at(0.37);
      const auto expected = output_and_gradients(f, {x}, upstream);
      const auto found = output_and_gradients(f, {wide.to(at::kCUDA).narrow(1, 8, 2 * d)}, upstream);
      for (size_t i = 0; i < 2; ++i) CHECK(bitwise_equal(found[i].cpu(), expected[i].contiguous()));
    }
  }
}

TEST_CASE("what keys_queries sums up is what hashes and scores begin with", "[gpu]") {
  // Rows behind the last sequence, which hold what comes.
  constexpr int64_t kUnused = 40;
  std::vector<int64_t> lengths = {1, 64, 65, 300, 2};
  const auto exact = layout_of(lengths, 0, at::kCUDA);
  const int64_t used = exact.total();
  lengths.push_back(kUnused);
  auto roomy = layout_of(lengths, 0, at::kCUDA);
  roomy.cu_seqlens[static_cast<int64_t>(lengths.size())].fill_(used);
  for (auto type : {at::kFloat, at::kBFloat16}) {
    for (int64_t d : {8, 16, 32, 72}) {
      CAPTURE(d, at::toString(type));
      at::Tensor rows = random_normal({used + kUnused, 2 * d + 8}, 5, type).to(at::kCUDA);
      rows.slice(0, used).fill_(std::numeric_limits<float>::quiet_NaN());
      rows = rows.narrow(1, 8, 2 * d);
      const auto plain = ops::keys_queries(rows.slice(0, 0, used), 0.37);
      const auto found = ops::keys_queries(rows, 0.37, &roomy);
      CHECK(!plain.sums.defined());
      REQUIRE(found.sums.defined());
      for (const auto& [whole, part] : {std::pair{found.K, plain.K}, {found.Q, plain.Q}}) {
        CHECK(bitwise_equal(whole.slice(0, 0, used).cpu(), part.cpu()));
        CHECK(whole.slice(0, used).eq(0).all().item<bool>());
      }
      const at::Tensor R = random_normal({d, 8}, 6, at::kFloat).to(at::kCUDA);
      for (auto statistics : {ops::HashStatistics::running_mean, ops::HashStatistics::whole_sequence}) {
        const ops::HashFunction hash{statistics, true, 256};
        const auto with = ops::lsh(found.K, found.Q, R, hash, 5, roomy, ops::Path::automatic, found.sums);
        const auto without = ops::lsh(plain.K, plain.Q, R, hash, 5, exact);
        CHECK(with.membership.key_bin.slice(0, 0, used).equal(without.membership.key_bin));
        CHECK(with.membership.query_bin.slice(0, 0, used).equal(without.membership.query_bin));
      }
      const double scale = 1 / std::sqrt(2.0 * static_cast<double>(d));
      const auto weight = [&](at::IntArrayRef sizes, uint32_t seed) {
        return (random_normal(sizes, seed) * scale).to(at::kCUDA, at::kFloat);
      };
      const ops::ScoreMlp mlp{weight({2 * d, 2 * d}, 11), weight({2 * d}, 12),    weight({2 * d, 2 * d}, 13),
                              weight({2 * d}, 14),        weight({1, 2 * d}, 15), weight({1}, 16)};
      const auto with = ops::causal_scores(found.Q, found.K, mlp, roomy, ops::Path::automatic, found.sums);
      const auto without = ops::causal_scores(plain.Q, plain.K, mlp, exact);
      CHECK(bitwise_equal(with.summary.slice(0, 0, used).cpu(), without.summary.cpu()));
      CHECK(relative_error(with.scores.slice(0, 0, used), without.scores) <= 1e-5);
    }
  }
}

}  // namespace hax::test
