#include "lib/ops/embedding.h"

#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

using test::Tensors;

struct Case {
  at::Tensor weight, tokens, upstream;
  ops::PackedLayout layout;
};

Case random_case(const std::vector<int64_t>& lengths, int64_t vocab, int64_t d, at::ScalarType dtype,
                 at::Device device) {
  Case c;
  c.layout = test::layout_of(lengths, 0, device);
  const int64_t T = c.layout.total();
  c.weight = test::random_normal({vocab, d}, 1).to(dtype).to(device);
  // Some ids often, some never.
  c.tokens = (test::random_normal({T}, 2).abs() * static_cast<double>(vocab) / 3)
                 .to(at::kLong)
                 .clamp_max(vocab - 1)
                 .to(device);
  c.upstream = test::random_normal({T, d}, 3).to(dtype).to(device);
  return c;
}

Tensors output_and_gradient(const Case& c) {
  const auto f = [&](const Tensors& in) { return ops::embedding(in[0], c.tokens, c.layout); };
  return test::output_and_gradients(f, {c.weight}, c.upstream);
}

// In fp64, on the CPU.
at::Tensor expected_gradient(const Case& c) {
  const at::Tensor zeros = at::zeros(c.weight.sizes(), at::kDouble);
  return zeros.index_add(0, c.tokens.cpu(), c.upstream.cpu().to(at::kDouble));
}

TEST_CASE("an embedding picks rows, and its gradient adds them up") {
  const Case c = random_case({5, 1, 33}, 11, 6, at::kFloat, at::kCPU);
  const auto found = output_and_gradient(c);
  CHECK(found[0].equal(c.weight.index_select(0, c.tokens)));
  CHECK(test::relative_error(found[1], expected_gradient(c)) <= 1e-6);
}

TEST_CASE("an embedding on a GPU: tables of small vocabularies, lists of large ones", "[gpu]") {
  struct Size {
    std::vector<int64_t> lengths;
    int64_t vocab, d;
  };
  const std::vector<Size> sizes = {{{1}, 1, 2},         {{300, 1, 129}, 150, 64}, {{257}, 7, 24},
                                   {{90, 40}, 19, 512}, {{700, 33}, 2000, 64},    {{128, 128}, 40, 20},
                                   {{65}, 70, 144}};
  for (const auto& size : sizes) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      CAPTURE(size.vocab, size.d, at::toString(dtype));
      const Case c = random_case(size.lengths, size.vocab, size.d, dtype, at::kCUDA);
      const auto found = output_and_gradient(c), again = output_and_gradient(c);
      CHECK(found[0].equal(c.weight.index_select(0, c.tokens)));
      CHECK(test::relative_error(found[1], expected_gradient(c)) <= (dtype == at::kFloat ? 1e-6 : 4e-3));
      CHECK(test::bitwise_equal(found[1].cpu(), again[1].cpu()));
    }
  }
}

}  // namespace
}  // namespace hax
