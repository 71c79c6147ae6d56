#include "lib/ops/overwrite.h"
#include "tests/catch.h"

namespace hax::ops::test {
namespace {

PackedLayout layout_of(const std::vector<int64_t>& offsets, at::Device device = at::kCPU) {
  return make_layout(offsets, 0, device);
}

// (T, 5) of -1, 0 and 1, mostly 0, the same at every call.
at::Tensor sparse_signs(int64_t T) {
  const at::Tensor n = at::arange(T * 5, at::kLong), residue = (n * n * 7 + n).remainder(11);
  return ((residue == 0).to(at::kFloat) - (residue == 4).to(at::kFloat)).view({T, 5});
}

}  // namespace

TEST_CASE("a feature holds what was last written into it, inside its sequence") {
  const at::Tensor x = at::tensor({2.0f, 0.0f, 0.0f, 3.0f, 0.0f, 0.0f, 0.0f, 5.0f, -1.0f, 0.0f}).view({5, 2});
  const at::Tensor h = at::tensor({2.0f, 0.0f, 2.0f, 3.0f, 0.0f, 0.0f, 0.0f, 5.0f, -1.0f, 5.0f}).view({5, 2});
  for (Path path : {Path::automatic, Path::reference}) {
    CHECK(at::equal(overwrite(x, layout_of({0, 2, 5}), path), h));
  }
}

TEST_CASE("overwrite is its reference, in every dtype and with its gradient") {
  const PackedLayout layout = layout_of({0, 1, 20, 60, 61});
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    at::Tensor x = sparse_signs(61).to(dtype);
    REQUIRE((x == 0).any().item<bool>());
    at::Tensor other = x.clone();
    x.set_requires_grad(true);
    other.set_requires_grad(true);
    const at::Tensor h = overwrite(x, layout), expected = overwrite(other, layout, Path::reference);
    CHECK(h.scalar_type() == dtype);
    CHECK(at::equal(h, expected));
    const at::Tensor weights = at::arange(h.numel(), h.options().requires_grad(false)).view_as(h) / 64;
    (h * weights).sum().backward();
    (expected * weights).sum().backward();
    CHECK(at::allclose(x.grad(), other.grad(), dtype == at::kBFloat16 ? 1e-1 : 1e-6));
  }
}

TEST_CASE("overwrite on a GPU is that on a CPU", "[gpu]") {
  const at::Tensor x = sparse_signs(61);
  CHECK(at::equal(overwrite(x.cuda(), layout_of({0, 1, 20, 61}, at::kCUDA)).cpu(),
                  overwrite(x, layout_of({0, 1, 20, 61}))));
}

TEST_CASE("overwrite refuses a tensor of another length") {
  CHECK_THROWS_AS(overwrite(at::zeros({4, 2}), layout_of({0, 5})), std::invalid_argument);
}

}  // namespace hax::ops::test
