#include "lib/ops/cross_entropy.h"

#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

using ops::Path;
using test::relative_error;
using test::Tensors;

test::TensorFunction loss_on(const at::Tensor& target, Path path) {
  return [target, path](const Tensors& in) { return ops::cross_entropy(in[0], target, path).loss; };
}

TEST_CASE("the loss of a known row") {
  const auto logits = at::tensor({0.0f, 1.0f, 2.0f, 2.0f, 0.0f, -1.0f}).view({2, 3});
  for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
    const auto result = ops::cross_entropy(logits, at::tensor({2, 1}, at::kLong), path);
    // log(1 + e + e^2) - 2, and log(e^2 + 1 + e^-1) - 0.
    CHECK(result.loss.item<double>() == Approx((0.40760596 + 2.16984603) / 2).epsilon(1e-6));
    CHECK(result.correct.equal(at::tensor({1, 0}, at::kLong).to(at::kBool)));
  }
}

TEST_CASE("of equal greatest logits the first one is the answer") {
  auto logits = at::zeros({3, 40});
  logits.select(1, 17) = 2;
  logits.select(1, 33) = 2;
  for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
    const auto result = ops::cross_entropy(logits, at::tensor({17, 33, 0}, at::kLong), path);
    CHECK(result.correct.equal(at::tensor({1, 0, 0}, at::kLong).to(at::kBool)));
  }
}

TEST_CASE("the loss's gradients are those of its finite differences") {
  const auto logits = test::random_normal({4, 6}, 1);
  const auto target = test::random_below(6, {4}, 2);
  const auto expected =
      test::output_and_differences(loss_on(target, Path::reference), {logits}, at::Tensor());
  for (const auto path : {Path::reference, Path::composite}) {
    const auto found = test::output_and_gradients(loss_on(target, path), {logits}, at::Tensor());
    CHECK(relative_error(found[1], expected[1]) <= 1e-8);
  }
}

TEST_CASE("the loss agrees with its fp64 reference at every size") {
  uint32_t seed = 10;
  for (const int64_t S : {1, 7, 200}) {
    for (const int64_t V : {1, 2, 100, 513}) {
      // Logits far from zero overflow a softmax that does not shift them.
      for (const double scale : {1.0, 300.0}) {
        CAPTURE(S, V, scale);
        const auto logits = (test::random_normal({S, V}, ++seed) * scale).to(at::kFloat);
        const auto target = test::random_below(static_cast<uint32_t>(V), {S}, seed);
        const auto upstream = at::scalar_tensor(0.7);
        const auto expected =
            test::output_and_gradients(loss_on(target, Path::reference), {logits.to(at::kDouble)}, upstream);
        const auto correct = ops::cross_entropy(logits.to(at::kDouble), target, Path::reference).correct;
        for (const auto path : {Path::composite, Path::automatic}) {
          const auto found = test::output_and_gradients(loss_on(target, path), {logits}, upstream);
          CHECK(relative_error(found[0], expected[0]) <= 2e-6);
          CHECK(relative_error(found[1], expected[1]) <= 2e-6);
          CHECK(ops::cross_entropy(logits, target, path).correct.equal(correct));
        }
      }
    }
  }
}

TEST_CASE("without scored rows the loss is zero") {
  for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
    const auto found = test::output_and_gradients(loss_on(at::zeros({0}, at::kLong), path),
                                                  {at::zeros({0, 5})}, at::Tensor());
    CHECK(found[0].item<double>() == 0);
    CHECK(found[1].sizes() == at::IntArrayRef({0, 5}));
  }
}

TEST_CASE("a NaN among the logits is a NaN loss") {
  for (const int64_t place : {0, 3}) {
    auto logits = at::zeros({2, 5});
    logits[1][place] = std::numeric_limits<float>::quiet_NaN();
    for (const auto path : {Path::composite, Path::automatic}) {
      CHECK(std::isnan(ops::cross_entropy(logits, at::zeros({2}, at::kLong), path).loss.item<double>()));
    }
  }
}

TEST_CASE("the loss gives the same bytes for any number of threads") {
  const int before = at::get_num_threads();
  const auto logits = test::random_normal({1000, 33}, 3, at::kFloat);
  const auto target = test::random_below(33, {1000}, 4);
  at::set_num_threads(1);
  const auto one = test::output_and_gradients(loss_on(target, Path::automatic), {logits}, at::Tensor());
  at::set_num_threads(2);
  const auto two = test::output_and_gradients(loss_on(target, Path::automatic), {logits}, at::Tensor());
  at::set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) CHECK(test::bitwise_equal(one[i], two[i]));
}

TEST_CASE("the loss refuses shapes and targets that do not fit") {
  CHECK_THROWS_AS(ops::cross_entropy(at::ones({2, 3}), at::zeros({3}, at::kLong)), std::invalid_argument);
  CHECK_THROWS_AS(ops::cross_entropy(at::ones({2, 3}), at::full({2}, 3, at::kLong)), std::invalid_argument);
  CHECK_THROWS_AS(ops::cross_entropy(at::ones({2, 3}), at::full({2}, -1, at::kLong)), std::invalid_argument);
}

TEST_CASE("the rounded loss is one of its logits' type, and rounds no more than that") {
  const at::Tensor target = test::random_below(11, {60}, 2);
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-14}, std::pair{at::kBFloat16, 8e-3}}) {
    const at::Tensor logits = test::random_normal({60, 11}, 1, dtype) * 2;
    const at::Tensor rounded_leaf = logits.detach().clone().requires_grad_(true),
                     wide_leaf = logits.detach().to(at::kDouble).requires_grad_(true);
    const auto rounded = ops::rounded_cross_entropy(rounded_leaf, target);
    const auto wide = ops::cross_entropy(wide_leaf, target, Path::reference);
    rounded.loss.backward();
    wide.loss.backward();
    CHECK(rounded.loss.equal(rounded.loss.to(dtype).to(rounded.loss.scalar_type())));
    CHECK(test::relative_error(rounded.loss, wide.loss) <= tolerance);
    CHECK(test::relative_error(rounded_leaf.grad(), wide_leaf.grad()) <= 2 * tolerance);
    CHECK(rounded.correct.equal(wide.correct));
  }
}

TEST_CASE("the loss on a GPU agrees with the fp64 reference", "[gpu]") {
  for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 2e-6}, std::pair{at::kBFloat16, 4e-3}}) {
    const auto logits = test::random_normal({300, 100}, 5, dtype);
    const auto target = test::random_below(100, {300}, 6);
    const auto expected =
        test::output_and_gradients(loss_on(target, Path::reference), {logits.to(at::kDouble)}, at::Tensor());
    const auto found = test::output_and_gradients(loss_on(target.to(at::kCUDA), Path::automatic),
                                                  {logits.to(at::kCUDA)}, at::Tensor());
    CHECK(found[0].scalar_type() == at::kFloat);
    CHECK(relative_error(found[0], expected[0]) <= 2e-6);
    CHECK(relative_error(found[1], expected[1]) <= tolerance);
  }
}

TEST_CASE("the rounded loss by one kernel rounds as tensor operations do; rows without a target do not count",
          "[gpu]") {
  const auto logits = (test::random_normal({300, 100}, 5, at::kBFloat16) * 3).to(at::kCUDA);
  const auto target = test::random_below(100, {300}, 6).to(at::kCUDA);
  const auto loss = [](const at::Tensor& wanted, Path path) -> test::TensorFunction {
    return [wanted, path](const Tensors& in) { return ops::rounded_cross_entropy(in[0], wanted, path).loss; };
  };
  const auto expected = test::output_and_gradients(loss(target, Path::composite), {logits}, at::Tensor());
  const auto more_logits = at::cat({logits, logits.slice(0, 0, 7)});
  const auto more_targets = at::cat({target, at::full({7}, -1, target.options())});
  const auto found =
      test::output_and_gradients(loss(more_targets, Path::automatic), {more_logits}, at::Tensor());
  CHECK(found[0].equal(expected[0]));
  CHECK(found[1].slice(0, 300).eq(0).all().item<bool>());
  const auto gradient = found[1].slice(0, 0, 300);
  // Exponentials that differ in their last bits may fall on the other side of a rounding boundary.
  CHECK(gradient.eq(expected[1]).to(at::kDouble).mean().item<double>() >= 0.95);
  CHECK(relative_error(gradient, expected[1]) <= 8e-3);
}

}  // namespace
}  // namespace hax
