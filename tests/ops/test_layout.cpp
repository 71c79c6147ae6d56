#include "lib/ops/layout.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

TEST_CASE("a layout holds each token's sequence and position") {
  const auto layout = test::layout_of({3, 1, 2}, 5);
  CHECK(layout.batch() == 3);
  CHECK(layout.total() == 6);
  CHECK(layout.max_seqlen == 3);
  CHECK(layout.padded_length == 5);
  CHECK(layout.cu_seqlens.equal(at::tensor({0, 3, 4, 6}, at::kLong)));
  CHECK(layout.seq_id.equal(at::tensor({0, 0, 0, 1, 2, 2}, at::kLong)));
  CHECK(layout.position.equal(at::tensor({0, 1, 2, 0, 0, 1}, at::kLong)));
  CHECK(test::layout_of({3, 1, 2}).padded_length == 3);
}

TEST_CASE("a layout refuses offsets that no packed tensor has") {
  using Offsets = std::vector<int64_t>;
  for (const Offsets& offsets : {Offsets{}, Offsets{0}, Offsets{1, 2}, Offsets{0, 2, 2}, Offsets{0, 3, 1}}) {
    CHECK_THROWS_AS(ops::make_layout(offsets, 0, at::kCPU), std::invalid_argument);
  }
  CHECK_THROWS_AS(ops::make_layout({0, 3}, 2, at::kCPU), std::invalid_argument);
}

TEST_CASE("padding and packing undo each other, and so do their gradients") {
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{3, 1, 2}, {2, 2}, {1}, {4}}) {
    const auto layout = test::layout_of(lengths);
    const auto packed = test::random_normal({layout.total(), 2, 3}, 1);
    const auto padded = ops::to_padded(packed, layout);
    CHECK(padded.sizes() == at::IntArrayRef({layout.batch(), layout.max_seqlen, 2, 3}));
    CHECK(ops::to_packed(padded, layout).equal(packed));
    CHECK(padded.abs().sum().item<double>() == Approx(packed.abs().sum().item<double>()));
    for (int64_t b = 0; b < layout.batch(); ++b) {
      CHECK(padded[b]
                .narrow(0, 0, layout.seqlen(b))
                .equal(packed.narrow(0, layout.offsets[b], layout.seqlen(b))));
    }
    const auto upstream = test::random_normal(padded.sizes(), 2);
    const auto gradients = test::output_and_gradients(
        [&](const test::Tensors& in) { return ops::to_padded(in[0], layout); }, {packed}, upstream);
    CHECK(gradients[1].equal(ops::to_packed(upstream, layout)));
    const auto back = test::output_and_gradients(
        [&](const test::Tensors& in) { return ops::to_packed(in[0], layout); }, {padded}, packed);
    CHECK(back[1].equal(padded));
  }
  const auto layout = test::layout_of({2, 3});
  CHECK_THROWS_AS(ops::to_padded(at::zeros({4, 2}), layout), std::invalid_argument);
  CHECK_THROWS_AS(ops::to_packed(at::zeros({2, 2}), layout), std::invalid_argument);
}

}  // namespace
}  // namespace hax
