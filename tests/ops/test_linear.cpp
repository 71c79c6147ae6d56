#include "lib/ops/linear.h"

#include "lib/ops/lanes.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax::test {
namespace {

const TensorFunction kLinear = [](const Tensors& in) { return ops::linear(in[0], in[1]); };

Tensors reference(const Tensors& inputs, const at::Tensor& upstream) {
  const TensorFunction product = [](const Tensors& in) { return in[0].mm(in[1].t()); };
  return output_and_gradients(product, converted(inputs, at::kDouble), upstream);
}

}  // namespace

TEST_CASE("a linear map and its gradients") {
  for (auto type : {at::kFloat, at::kDouble}) {
    const Tensors inputs{random_normal({13, 6}, 1, type), random_normal({9, 6}, 2, type)};
    const at::Tensor upstream = random_normal({13, 9}, 3, type);
    const auto found = output_and_gradients(kLinear, inputs, upstream),
               expected = reference(inputs, upstream);
    for (size_t i = 0; i < 3; ++i) CHECK(relative_error(found[i], expected[i]) <= 2e-6);
  }
}

TEST_CASE("a linear map on a GPU puts a leaf's gradient together apart", "[gpu]") {
  for (auto type : {at::kBFloat16, at::kFloat}) {
    CAPTURE(at::toString(type));
    const Tensors inputs{random_normal({1000, 64}, 4, type).to(at::kCUDA),
                         (random_normal({328, 64}, 5) / 8).to(at::kCUDA, type)};
    const at::Tensor upstream = random_normal({1000, 328}, 6, type);
    const auto expected = reference(inputs, upstream);
    const at::Tensor x = inputs[0].clone().requires_grad_(), weight = inputs[1].clone().requires_grad_();
    for (int times = 1; times <= 2; ++times) {  // gradients add up
      ops::LaneScope lanes(at::kCUDA);
      ops::linear(x, weight).backward(upstream.to(at::kCUDA));
      lanes.join_all();
      const double tolerance = type == at::kFloat ? 1e-5 : 1e-2;
      CHECK(relative_error(x.grad(), expected[1] * times) <= tolerance);
      CHECK(relative_error(weight.grad(), expected[2] * times) <= tolerance);
    }
  }
}

}  // namespace hax::test
