#include "lib/ops/leaf_gradients.h"

#include "lib/ops/causal_conv1d.h"
#include "lib/ops/gate.h"
#include "lib/ops/rms_norm.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax::test {
namespace {

TEST_CASE("Outside a LaneScope no gradient is made apart") {
  const at::Tensor weight = at::ones({3}).requires_grad_();
  CHECK_FALSE(ops::can_be_apart({weight}));
}

TEST_CASE("Within a LaneScope gradients of leaves may be made apart", "[gpu]") {
  const ops::LaneScope lanes(at::kCUDA);
  const at::Tensor leaf = at::ones({3, 2}, at::TensorOptions(at::kCUDA)).requires_grad_();
  CHECK(ops::can_be_apart({leaf, at::Tensor()}));
  CHECK_FALSE(ops::can_be_apart({leaf, leaf * 2}));
  CHECK_FALSE(ops::can_be_apart({leaf, leaf.detach()}));
  CHECK_FALSE(ops::can_be_apart({leaf.detach().t().requires_grad_()}));
  const at::NoGradGuard no_grad;
  CHECK_FALSE(ops::can_be_apart({leaf}));
}

// The same bytes in all gradients within a LaneScope as outside, twice as much after a second pass.
TEST_CASE("Ops put the gradients of leaves together apart", "[gpu]") {
  const auto layout = layout_of({40, 1, 259}, 0, at::kCUDA);
  const int64_t T = layout.total(), d = 64, channels = 32;
  const at::Tensor index = at::tensor({5, -1, 299, 17, 0}, at::kLong).to(at::kCUDA);
  struct Case {
    std::string name;
    TensorFunction op;
    Tensors inputs;      // activations
    Tensors parameters;  // fp32
    std::vector<int64_t> out;
  };
  const auto rows = [&](int64_t columns, uint32_t seed) { return random_normal({T, columns}, seed); };
  const std::vector<Case> cases{
      {"causal_conv1d",
       [&](const Tensors& in) {
         // Columns beside the convolved ones, whose gradient is copied meanwhile.
         const auto pieces = ops::causal_conv1d_pieces(in[0], 8, in[1], in[2], layout,
                                                       {{0, 8}, {8, channels}, {8 + channels, 4}});
         return at::cat({pieces[0], pieces[1] * 2, pieces[2]}, 1);
       },
       {rows(channels + 12, 1)},
       {random_normal({channels, 1, 4}, 2), random_normal({channels}, 3)},
       {T, channels + 12}},
      {"gated_rms_norm",
       [&](const Tensors& in) {
         return ops::gated_rms_norm({in[0], in[1], in[2], in[3]}, in[4], 1e-5);
       },
       {rows(d, 4), rows(d, 5), rows(d, 6)},
       {random_normal({d}, 7), random_normal({d}, 8)},
       {T, d}},
      {"gate",
       [&](const Tensors& in) {
         return ops::gate({in[0], in[1], in[2], in[3]});
       },
       {rows(d, 9), rows(d, 10), rows(d, 11)},
       {random_normal({d}, 12)},
       {T, d}},
      {"add_rms_norm",
       [&](const Tensors& in) { return ops::add_rms_norm(in[0], in[1], in[2], 1e-5).norm; },
       {rows(d, 13), rows(d, 14)},
       {random_normal({d}, 15)},
       {T, d}},
      {"add_rms_norm_of_rows",
       [&](const Tensors& in) { return ops::add_rms_norm_of_rows(in[0], in[1], index, in[2], 1e-5); },
       {rows(d, 16), rows(d, 17)},
       {random_normal({d}, 18)},
       {5, d}}};
  for (const auto& [name, op, inputs, parameters, out] : cases) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      CAPTURE(name, at::toString(dtype));
      Tensors leaves;
      for (const auto& input : inputs) leaves.push_back(input.to(at::kCUDA, dtype).requires_grad_());
      for (const auto& parameter : parameters)
        leaves.push_back(parameter.to(at::kCUDA, at::kFloat).requires_grad_());
      at::Tensor upstream = random_normal(out, 20).to(at::kCUDA, dtype);
      if (name == "add_rms_norm_of_rows") upstream.select(0, 1).zero_();
      const auto gradients = [&] {
        Tensors found;
        for (auto& leaf : leaves) found.push_back(leaf.grad().clone());
        return found;
      };
      op(leaves).backward(upstream);
      const Tensors expected = gradients();
      for (auto& leaf : leaves) leaf.mutable_grad().reset();
      for (int times = 1; times <= 2; ++times) {
        ops::LaneScope lanes(at::kCUDA);
        op(leaves).backward(upstream);
        lanes.join_all();
        const Tensors found = gradients();
        for (size_t i = 0; i < found.size(); ++i) {
          CAPTURE(times, i);
          CHECK(bitwise_equal(found[i].cpu(), (expected[i] * times).cpu()));
        }
      }
    }
  }
}

}  // namespace
}  // namespace hax::test
