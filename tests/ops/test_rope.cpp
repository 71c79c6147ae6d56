#include "lib/ops/rope.h"

#include <cmath>

#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

using ops::Path;
using test::relative_error;
using test::Tensors;

test::TensorFunction rope_on(Path path, const at::Tensor& position, double theta) {
  return [=](const Tensors& in) { return ops::rope(in[0], position, theta, path); };
}

TEST_CASE("rope turns pairs of features by the position inside the sequence") {
  // Two features turn by one radian a token.
  const auto position = test::layout_of({3, 2}).position;
  const at::Tensor x = at::tensor({1.0, 0.0}, at::kDouble).expand({5, 1, 2});
  for (const auto path : {Path::reference, Path::automatic}) {
    const at::Tensor y = ops::rope(x, position, 10000.0, path);
    int64_t row = 0;
    for (const double t : {0.0, 1.0, 2.0, 0.0, 1.0}) {
      CHECK(y[row][0][0].item<double>() == Approx(std::cos(t)).margin(1e-15));
      CHECK(y[row][0][1].item<double>() == Approx(std::sin(t)).margin(1e-15));
      ++row;
    }
  }
  // Of four features, 0 and 2 are a pair, and 1 and 3 turn theta^(1/2) times more slowly.
  const at::Tensor unit = at::eye(4, at::kDouble).unsqueeze(0);  // one token with four heads
  const at::Tensor y =
      ops::rope(at::cat({at::zeros_like(unit), unit}), test::layout_of({2}).position, 100.0)[1];
  const double fast = 1.0, slow = 0.1;
  const at::Tensor expected = at::zeros({4, 4}, at::kDouble);
  for (const auto& [p, angle] : {std::pair{0, fast}, std::pair{1, slow}}) {
    expected[p][p] = std::cos(angle);
    expected[p][p + 2] = std::sin(angle);
    expected[p + 2][p] = -std::sin(angle);
    expected[p + 2][p + 2] = std::cos(angle);
  }
  CHECK(relative_error(y, expected) <= 1e-15);
}

TEST_CASE("rope makes dot products depend on the distance alone") {
  const auto position = test::layout_of({60}).position;
  const at::Tensor q = test::random_normal({1, 2, 8}, 1).expand({60, 2, 8}),
                   k = test::random_normal({1, 2, 8}, 2).expand({60, 2, 8});
  const at::Tensor rotated_q = ops::rope(q, position, 10000.0), rotated_k = ops::rope(k, position, 10000.0);
  const auto score = [&](int64_t i, int64_t j) { return (rotated_q[i] * rotated_k[j]).sum().item<double>(); };
  for (const int64_t distance : {0, 1, 7, 40}) {
    CHECK(score(distance + 19, 19) == Approx(score(distance, 0)).epsilon(1e-12));
  }
  CHECK(std::abs(score(7, 0) - score(8, 0)) > 1e-3);
}

TEST_CASE("rope agrees with its reference, and its gradient with finite differences") {
  const auto position = test::layout_of({5, 1, 9, 2}).position;
  const Tensors inputs{test::random_normal({17, 3, 6}, 3)};
  const auto upstream = test::random_normal({17, 3, 6}, 4);
  const auto expected =
      test::output_and_gradients(rope_on(Path::reference, position, 50.0), inputs, upstream);
  const auto numeric =
      test::output_and_differences(rope_on(Path::reference, position, 50.0), inputs, upstream);
  const auto found = test::output_and_gradients(rope_on(Path::automatic, position, 50.0), inputs, upstream);
  const auto single = test::output_and_gradients(rope_on(Path::automatic, position, 50.0),
                                                 test::converted(inputs, at::kFloat), upstream);
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK(relative_error(expected[i], numeric[i]) <= 1e-8);
    CHECK(relative_error(found[i], expected[i]) <= 1e-14);
    CHECK(relative_error(single[i], expected[i]) <= 3e-7);
  }
}

TEST_CASE("rope in bf16 rounds its tables and its result alone") {
  const auto position = test::layout_of({50, 3}).position;
  const at::Tensor x = test::random_normal({53, 2, 8}, 5, at::kBFloat16);
  const at::Tensor y = ops::rope(x, position, 10000.0);
  CHECK(y.scalar_type() == at::kBFloat16);
  CHECK(relative_error(y, ops::rope(x.to(at::kDouble), position, 10000.0)) <= 8e-3);
  const at::Tensor reference = ops::rope(x, position, 10000.0, Path::reference);
  CHECK((y == reference).to(at::kFloat).mean().item<float>() > 0.99f);
}

TEST_CASE("rope refuses shapes that do not fit") {
  const auto position = test::layout_of({3}).position;
  CHECK_THROWS_AS(ops::rope(at::ones({3, 2, 5}), position, 10.0), std::invalid_argument);
  CHECK_THROWS_AS(ops::rope(at::ones({2, 2, 4}), position, 10.0), std::invalid_argument);
  CHECK_THROWS_AS(ops::rope(at::ones({3, 8}), position, 10.0), std::invalid_argument);
}

TEST_CASE("rope on a GPU agrees with the fp64 reference", "[gpu]") {
  const auto position = test::layout_of({300, 17}).position, on_gpu = position.to(at::kCUDA);
  for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 1e-6}, std::pair{at::kBFloat16, 8e-3}}) {
    CAPTURE(at::toString(dtype));
    const Tensors inputs{test::random_normal({317, 4, 16}, 6, dtype)};
    const auto upstream = test::random_normal({317, 4, 16}, 7, dtype);
    const auto expected = test::output_and_gradients(rope_on(Path::reference, position, 10000.0),
                                                     test::converted(inputs, at::kDouble), upstream);
    const auto found = test::output_and_gradients(rope_on(Path::automatic, on_gpu, 10000.0),
                                                  test::converted(inputs, dtype, at::kCUDA), upstream);
    for (size_t i = 0; i < expected.size(); ++i) CHECK(relative_error(found[i], expected[i]) <= tolerance);
  }
}

}  // namespace
}  // namespace hax
