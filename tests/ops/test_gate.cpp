#include "lib/ops/gate.h"

#include "tests/catch.h"
#include "tests/ops/gpu_checks.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

using ops::Path;
using test::Tensors;

constexpr double kEps = 1e-5;

struct Kind {
  bool branch, norm;
};
constexpr Kind kKinds[] = {{false, false}, {false, true}, {true, false}, {true, true}};

// {y, z}, then O and E, then the norm's weight.
test::TensorFunction gate_on(Kind kind, Path path) {
  return [kind, path](const Tensors& in) {
    ops::GateInputs gate{in[0], in[1], {}, {}};
    if (kind.branch) gate.O = in[2], gate.E = in[3];
    return kind.norm ? ops::gated_rms_norm(gate, in.back(), kEps, path) : ops::gate(gate, path);
  };
}

Tensors random_inputs(Kind kind, int64_t rows, int64_t d, uint32_t seed) {
  Tensors inputs{test::random_normal({rows, d}, seed), test::random_normal({rows, d}, seed + 1) * 2};
  if (kind.branch) {
    inputs.push_back(test::random_normal({rows, d}, seed + 2));
    inputs.push_back(test::random_normal({d}, seed + 3));
  }
  if (kind.norm) inputs.push_back(test::random_normal({d}, seed + 4));
  return inputs;
}

std::vector<std::string> names_of(Kind kind) {
  std::vector<std::string> names{"out", "dy", "dz"};
  if (kind.branch) names.insert(names.end(), {"dO", "dE"});
  if (kind.norm) names.push_back("dweight");
  return names;
}

TEST_CASE("the gates are what they are written as") {
  for (const Kind kind : kKinds) {
    CAPTURE(kind.branch, kind.norm);
    const auto in = random_inputs(kind, 7, 6, 3);
    at::Tensor v = in[0];
    if (kind.branch) v = v + in[2] * in[3];
    at::Tensor expected = v * in[1] / (1 + (-in[1]).exp());
    if (kind.norm) expected = expected / (expected.square().mean(1, true) + kEps).sqrt() * in.back();
    for (const auto path : {Path::reference, Path::composite, Path::automatic})
      CHECK(test::relative_error(gate_on(kind, path)(in), expected) <= 1e-12);
    CHECK(test::relative_error(gate_on(kind, Path::automatic)(test::converted(in, at::kFloat)), expected) <=
          1e-6);
  }
}

TEST_CASE("the gates' gradients are those of their finite differences") {
  for (const Kind kind : kKinds) {
    CAPTURE(kind.branch, kind.norm);
    const auto inputs = random_inputs(kind, 4, 5, 1);
    const auto upstream = test::random_normal({4, 5}, 9);
    const auto expected = test::output_and_differences(gate_on(kind, Path::reference), inputs, upstream);
    const auto found = test::output_and_gradients(gate_on(kind, Path::composite), inputs, upstream);
    REQUIRE(found.size() == expected.size());
    for (size_t i = 0; i < found.size(); ++i) CHECK(test::relative_error(found[i], expected[i]) <= 1e-8);
  }
}

TEST_CASE("the gates refuse shapes that do not fit") {
  const at::Tensor x = at::ones({3, 2});
  CHECK_THROWS_AS(ops::gate({x, at::ones({2, 2}), {}, {}}), std::invalid_argument);
  CHECK_THROWS_AS(ops::gate({x, x, at::ones({3, 3}), at::ones({2})}), std::invalid_argument);
  CHECK_THROWS_AS(ops::gate({x, x, x, at::ones({3})}), std::invalid_argument);
  CHECK_THROWS_AS(ops::gated_rms_norm({x, x, {}, {}}, at::ones({3}), kEps), std::invalid_argument);
}

TEST_CASE("the gates on a GPU agree with the fp64 reference", "[gpu]") {
  uint32_t seed = 20;
  for (const Kind kind : kKinds) {
    const test::OpOn op = [kind](const ops::PackedLayout&, Path path) { return gate_on(kind, path); };
    for (const int64_t rows : {1, 9, 70}) {
      for (const int64_t d : {4, 7, 100, 128, 256, 270, 512, 1536, 2048}) {
        CAPTURE(kind.branch, kind.norm, rows, d);
        const auto inputs = random_inputs(kind, rows, d, seed += 10);
        const auto upstream = test::random_normal({rows, d}, seed + 7);
        // The norm's gradient is a small rest of large parts where features are few.
        for (const auto dtype : {at::kFloat, at::kBFloat16})
          test::check_on_gpu(op, {rows}, inputs, upstream, names_of(kind), dtype, d < 10 ? 3e-5 : 3e-6);
      }
    }
  }
}

TEST_CASE("the gates on a GPU hold over more rows than a launch has teams", "[gpu]") {
  for (const Kind kind : kKinds) {
    CAPTURE(kind.branch, kind.norm);
    const auto inputs = test::converted(random_inputs(kind, 10000, 128, 40), at::kFloat, at::kCUDA);
    const auto upstream = test::random_normal({10000, 128}, 47, at::kFloat).to(at::kCUDA);
    const auto expected = test::output_and_gradients(gate_on(kind, Path::composite),
                                                     test::converted(inputs, at::kDouble), upstream);
    const auto found = test::output_and_gradients(gate_on(kind, Path::automatic), inputs, upstream);
    for (size_t i = 0; i < found.size(); ++i) CHECK(test::relative_error(found[i], expected[i]) <= 3e-6);
  }
}

TEST_CASE("the gates on a GPU read slices of wider rows", "[gpu]") {
  const int64_t T = 70, d = 128;
  for (const Kind kind : kKinds) {
    for (const int64_t shift : {0, 2, 3, 4}) {
      CAPTURE(kind.branch, kind.norm, shift);
      auto inputs = test::converted(random_inputs(kind, T, d, 5), at::kBFloat16, at::kCUDA);
      const auto upstream = test::random_normal({T, d}, 6, at::kBFloat16).to(at::kCUDA);
      const auto expected = test::output_and_gradients(gate_on(kind, Path::automatic), inputs, upstream);
      const auto wide = at::cat({at::zeros({T, shift}, inputs[0].options()), inputs[1], inputs[0],
                                 at::zeros({T, 8 - shift}, inputs[0].options())},
                                1);
      inputs[1] = wide.narrow(1, shift, d);
      inputs[0] = wide.narrow(1, shift + d, d);
      const auto found = test::output_and_gradients(gate_on(kind, Path::automatic), inputs, upstream);
      // Where rows do not begin at a multiple of four the sums are taken in another order.
      for (size_t i = 0; i < found.size(); ++i)
        CHECK(test::relative_error(found[i], expected[i]) <= (shift % 4 == 0 ? 0.0 : 4e-3));
    }
  }
}

}  // namespace
}  // namespace hax
