#include "lib/ops/keys_queries.h"

#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax::test {
namespace {

// K and Q side by side.
TensorFunction keys_queries_at(double scale) {
  return [scale](const Tensors& in) {
    const auto [K, Q] = ops::keys_queries(in[0], scale);
    return at::cat({K, Q}, 1);
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

}  // namespace hax::test
