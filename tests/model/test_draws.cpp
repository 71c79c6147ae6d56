// Random draws, initial values and the flat parameter buffers.
#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "lib/base/random.h"
#include "lib/model/draws.h"
#include "lib/model/init.h"
#include "lib/model/parameters.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax::test {
namespace {

TEST_CASE("Hash matrices: fresh each training step, fixed or fresh in evaluation") {
  const auto matrix = [](uint64_t seed, uint32_t step, bool training, bool fixed, int64_t layer) {
    return PhiloxDraws(seed, step, training, fixed, false).hash_matrix(layer, 16, 4);
  };
  const at::Tensor one = matrix(1, 7, true, true, 0);
  CHECK(one.equal(matrix(1, 7, true, true, 0)));
  CHECK(!one.equal(matrix(2, 7, true, true, 0)));
  CHECK(!one.equal(matrix(1, 8, true, true, 0)));
  CHECK(!one.equal(matrix(1, 7, true, true, 1)));
  CHECK(!one.equal(matrix(1, 7, false, true, 0)));
  CHECK(matrix(1, 7, false, true, 0).equal(matrix(1, 9, false, true, 0)));
  CHECK(!matrix(1, 7, false, false, 0).equal(matrix(1, 9, false, false, 0)));
  const at::Tensor large = PhiloxDraws(3, 0, true, true, false).hash_matrix(0, 400, 100);
  CHECK(std::abs(large.mean().item<double>()) < 0.02);  // 4 standard errors
  CHECK(std::abs(large.std().item<double>() - 1) < 0.015);
}

TEST_CASE("Sampled positions are the k with the largest noise") {
  const auto layout = layout_of({50, 3, 9, 1}, 60);
  const int64_t k = 6;
  for (bool fill : {false, true}) {
    const at::Tensor sampled = PhiloxDraws(5, 11, true, true, fill).sampled_positions(2, k, layout);
    REQUIRE(sampled.sizes() == at::IntArrayRef({4, k}));
    for (int64_t b = 0; b < 4; ++b) {
      RandomStream random({.seed = 5,
                           .purpose = Purpose::ranking_sample,
                           .layer = 2,
                           .step = 11,
                           .index = static_cast<uint32_t>(b)});
      std::vector<std::pair<uint32_t, int64_t>> noise;
      for (int64_t p = 0; p < layout.seqlen(b); ++p) noise.push_back({random.next(), p});
      std::stable_sort(noise.begin(), noise.end(),
                       [](const auto& x, const auto& y) { return x.first > y.first; });
      for (int64_t a = 0; a < k; ++a) {
        const int64_t missing = fill ? a : -1;  // sequences shorter than k go on with positions n, n + 1, ...
        const int64_t expected = a < layout.seqlen(b) ? noise[a].second : missing;
        CHECK(sampled[b][a].item<int64_t>() == expected);
      }
    }
  }
  // Where even the padded sequence is shorter than k, the rest is missing.
  const at::Tensor few = PhiloxDraws(5, 0, true, true, true).sampled_positions(0, 4, layout_of({1}, 2));
  CHECK(few.equal(at::tensor({int64_t{0}, int64_t{1}, int64_t{-1}, int64_t{-1}}).view({1, 4})));
}

TEST_CASE("Noise of few bits gives its ties to the lower position") {
  const auto layout = layout_of({400});
  const int64_t k = 60;
  const at::Tensor sampled = PhiloxDraws(5, 3, true, true, true, 8).sampled_positions(1, k, layout)[0];
  RandomStream random({.seed = 5, .purpose = Purpose::ranking_sample, .layer = 1, .step = 3});
  std::vector<std::pair<uint32_t, int64_t>> noise;
  for (int64_t p = 0; p < 400; ++p) noise.push_back({random.next() >> 24, p});
  std::stable_sort(noise.begin(), noise.end(),
                   [](const auto& x, const auto& y) { return x.first > y.first; });
  int64_t ties = 0;
  for (int64_t a = 0; a < k; ++a) {
    CHECK(sampled[a].item<int64_t>() == noise[a].second);
    ties += a > 0 && noise[a].first == noise[a - 1].first;
  }
  CHECK(ties > k / 4);
  CHECK(!sampled.equal(PhiloxDraws(5, 3, true, true, true).sampled_positions(1, k, layout)[0]));
  CHECK_THROWS_AS(PhiloxDraws(5, 3, true, true, true, 0), std::invalid_argument);
}

TEST_CASE("Sampling is uniform") {
  const auto layout = layout_of({10});
  std::vector<double> counts(10, 0.0);
  const int steps = 4000;
  for (int step = 0; step < steps; ++step) {
    const at::Tensor sampled = PhiloxDraws(1, step, true, true, false).sampled_positions(0, 3, layout);
    for (int a = 0; a < 3; ++a) counts[sampled[0][a].item<int64_t>()] += 1;
  }
  double chi_square = 0;
  for (double count : counts) chi_square += (count - 0.3 * steps) * (count - 0.3 * steps) / (0.3 * steps);
  CHECK(chi_square < 27.9);  // 9 degrees of freedom, p = 0.001; sampling without replacement only lowers it
}

TEST_CASE("Initial values: distributions, and streams that do not touch each other") {
  const init::Key key{9, 1, 2};
  const at::Tensor normal = init::normal({100, 200}, 0.1, key);
  CHECK(std::abs(normal.mean().item<double>()) < 4 * 0.1 / std::sqrt(20000.0));
  CHECK(std::abs(normal.std().item<double>() - 0.1) < 4 * 0.1 / std::sqrt(40000.0));
  CHECK(normal.flatten().slice(0, 0, 50).equal(init::normal({5, 10}, 0.1, key).flatten()));
  CHECK(!normal.equal(init::normal({100, 200}, 0.1, {9, 1, 3})));
  CHECK(!normal.equal(init::normal({100, 200}, 0.1, {9, 0, 2})));
  const at::Tensor uniform = init::uniform({20000}, -2, 3, key);
  CHECK(uniform.min().item<float>() >= -2.0f);
  CHECK(uniform.max().item<float>() <= 3.0f);
  CHECK(std::abs(uniform.mean().item<double>() - 0.5) < 4 * 5 / std::sqrt(12 * 20000.0));
  CHECK(init::constant({3}, 1.5).equal(at::full({3}, 1.5, at::kFloat)));
  const at::Tensor log_dt = at::softplus(init::dt_bias(20000, key).to(at::kDouble)).log();
  CHECK(log_dt.min().item<double>() >= std::log(1e-3) - 1e-4);
  CHECK(log_dt.max().item<double>() <= std::log(1e-1) + 1e-4);
  CHECK(std::abs(log_dt.mean().item<double>() - std::log(1e-2)) <
        4 * std::log(100.0) / std::sqrt(12 * 20000.0));
}

// Parameters used as they are, in the dtype of matrix products, and in fp32.
void check_cast_values(at::Device device, at::ScalarType stored, at::ScalarType compute) {
  CAPTURE(device, at::toString(stored), at::toString(compute));
  ParameterSet set;
  const Parameter& a = set.add("a", random_normal({7, 5}, 1, at::kFloat));
  const Parameter& odd = set.add("odd", random_normal({1}, 2, at::kFloat));
  const Parameter& unused = set.add("unused", random_normal({3}, 3, at::kFloat));
  const Parameter& both = set.add("both", random_normal({9, 5}, 4, at::kFloat));
  set.finish(device, stored);
  const at::Tensor x = random_normal({6, 5}, 5, compute).to(device);
  const auto loss = [&] {
    const at::Tensor h = at::linear(x, a.to(compute)).to(at::kFloat) * odd.wide();
    const at::Tensor g = at::linear(x, both.to(compute));
    return h.square().sum() + g.to(at::kFloat).sum() + both.value.to(at::kFloat).square().sum();
  };
  const at::Tensor views = a.value.grad();
  loss().backward();
  const at::Tensor expected = set.flat_grad().clone();
  set.zero_grad();
  set.flat_grad().fill_(9.0);  // collect() writes every place
  {
    CastValues casts(set, compute);
    for (const Parameter* p : {&a, &odd, &unused, &both}) {
      const at::Tensor used = p->to(compute);
      CHECK(used.scalar_type() == compute);
      CHECK(used.equal(p->value.to(compute)));
      CHECK((used.is_leaf() && used.requires_grad() && !used.is_same(p->value)));
      CHECK(reinterpret_cast<uintptr_t>(used.data_ptr()) % 16 == 0);
      CHECK((p->wide().scalar_type() == at::kFloat && p->wide().is_leaf()));
    }
    loss().backward();
    casts.collect();
  }
  // bf16 gradients from several places are rounded each, or once.
  if (stored == at::kFloat)
    CHECK(bitwise_equal(set.flat_grad().cpu(), expected.cpu()));
  else
    CHECK(relative_error(set.flat_grad(), expected) <= 8e-3);
  CHECK(a.value.grad().data_ptr() == views.data_ptr());
  CHECK((!a.cast.defined() && !a.copy.defined()));
  CHECK(unused.value.grad().equal(at::zeros_like(unused.value)));
}

constexpr std::array kStoredAndCompute{std::pair{at::kFloat, at::kBFloat16},
                                       std::pair{at::kFloat, at::kFloat},
                                       std::pair{at::kBFloat16, at::kBFloat16}};

TEST_CASE("Values cast at once give the gradients of values cast where they are used") {
  for (const auto& [stored, compute] : kStoredAndCompute) check_cast_values(at::kCPU, stored, compute);
}

TEST_CASE("Values cast at once on a GPU", "[gpu]") {
  for (const auto& [stored, compute] : kStoredAndCompute) check_cast_values(at::kCUDA, stored, compute);
}

TEST_CASE("Parameters and gradients are views of flat buffers") {
  for (auto dtype : {at::kFloat, at::kBFloat16}) {
    ParameterSet set;
    at::Tensor& a = set.add("a", random_normal({2, 3}, 1, at::kFloat)).value;
    at::Tensor& unused = set.add("unused", random_normal({4}, 2, at::kFloat)).value;
    at::Tensor& c = set.add("c", at::scalar_tensor(2.0, at::kFloat)).value;
    CHECK_THROWS_AS(set.add("a", a), std::invalid_argument);
    const at::Tensor initial = a.detach().clone();
    set.finish(at::kCPU, dtype);
    CHECK_THROWS_AS(set.add("late", initial), std::invalid_argument);
    CHECK_THROWS_AS(set.finish(at::kCPU, dtype), std::invalid_argument);
    CHECK(set.numel() == 11);
    CHECK(set.find("a") == &a);
    CHECK(set.find("b") == nullptr);
    CHECK(a.is_leaf());
    CHECK(a.requires_grad());
    CHECK(a.scalar_type() == dtype);
    CHECK(a.equal(initial.to(dtype)));
    CHECK(set.flat().slice(0, 0, 6).view({2, 3}).equal(a));

    for (int pass = 1; pass <= 2; ++pass) {  // gradients add up in place
      (a.sum() * c * 3).backward();
      CHECK(set.flat_grad().slice(0, 0, 6).equal(at::full({6}, 6.0 * pass, dtype)));
      CHECK(set.flat_grad().slice(0, 6, 10).equal(at::zeros({4}, dtype)));
      CHECK(a.grad().data_ptr() == set.flat_grad().data_ptr());
    }
    CHECK(unused.grad().equal(at::zeros({4}, dtype)));
    CHECK(c.grad().item<double>() != 0.0);
    set.zero_grad();
    CHECK(set.flat_grad().equal(at::zeros({11}, dtype)));
    {
      const at::NoGradGuard no_grad;
      set.flat().add_(1.0);
    }
    CHECK(a.equal((initial.to(dtype) + 1.0)));
    CHECK(a.is_leaf());
  }
}

}  // namespace
}  // namespace hax::test
