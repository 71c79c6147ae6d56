#include "lib/ops/ssd.h"

#include "tests/catch.h"
#include "tests/ops/ssd_inputs.h"

namespace hax {
namespace {

using ops::PackedLayout;
using ops::Path;
using test::relative_error;
using test::SsdShape;
using test::Tensors;

void check_close(const Tensors& found, const Tensors& expected, double tolerance) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const std::string name = i == 0 ? "y" : "gradient of " + test::kSsdInputs[i - 1];
    CAPTURE(name);
    CHECK(relative_error(found[i], expected[i]) <= tolerance);
  }
}

TEST_CASE("ssd agrees with the official scan", "[golden]") {
  const auto file = Safetensors::open(test::golden_path("ssd.safetensors"));
  int cases = 0;
  for (const auto& info : file.tensors()) {
    const auto slash = info.name.find('/');
    if (info.name.substr(slash + 1) != "x") continue;
    ++cases;
    const std::string name = info.name.substr(0, slash + 1);
    CAPTURE(name);
    const auto layout = test::layout_of(std::vector<int64_t>(info.shape[0], info.shape[1]));
    const auto packed = [&](const std::string& what) {
      auto tensor = test::load_tensor(file, name + what);
      return tensor.dim() > 2 ? tensor.flatten(0, 1) : tensor;
    };
    Tensors inputs, expected{packed("out")};
    for (const auto& input : test::kSsdInputs) {
      inputs.push_back(packed(input));
      expected.push_back(packed("grad." + input));
    }
    for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
      CAPTURE(static_cast<int>(path));
      check_close(test::output_and_gradients(test::ssd_on(layout, path), inputs, packed("grad_out")),
                  expected, 6e-6);
    }
    check_close(
        test::output_and_gradients(test::ssd_on(layout, Path::composite, 16), inputs, packed("grad_out")),
        expected, 6e-6);
    const auto state = ops::ssd_final_state(test::ssd_inputs(inputs), layout);
    CHECK(relative_error(state, test::load_tensor(file, name + "final_state")) <= 6e-6);
  }
  CHECK(cases > 0);
}

TEST_CASE("ssd's gradients are those of its finite differences") {
  const auto layout = test::layout_of({5, 1, 3});
  const auto inputs = test::random_ssd_inputs(9, {4, 2, 2, 3}, 10);
  const auto upstream = test::random_normal({9, 4, 2}, 20);
  const auto expected = test::output_and_differences(test::ssd_on(layout, Path::reference), inputs, upstream);
  check_close(test::output_and_gradients(test::ssd_on(layout, Path::reference), inputs, upstream), expected,
              1e-8);
  for (const int64_t chunk_size : {1, 2, 64}) {
    CAPTURE(chunk_size);
    check_close(
        test::output_and_gradients(test::ssd_on(layout, Path::composite, chunk_size), inputs, upstream),
        expected, 1e-8);
  }
}

TEST_CASE("ssd agrees with its fp64 reference at every shape") {
  const std::vector<std::vector<int64_t>> ragged{{1}, {1, 1, 1}, {17, 1, 64, 33, 5}, {16, 32, 48}, {150, 3}};
  const std::vector<SsdShape> shapes{{8, 16, 1, 32}, {4, 6, 2, 10},  {1, 1, 1, 1},  {2, 4, 2, 2},
                                     {3, 64, 1, 5},  {6, 1, 3, 128}, {2, 16, 1, 1}, {2, 33, 2, 17}};
  uint32_t seed = 100;
  for (const auto& lengths : ragged) {
    for (const auto& s : shapes) {
      seed += 10;
      CAPTURE(lengths, s.H, s.P, s.G, s.N);
      const auto layout = test::layout_of(lengths);
      const auto inputs = test::converted(test::random_ssd_inputs(layout.total(), s, seed), at::kFloat);
      const auto upstream = test::random_normal({layout.total(), s.H, s.P}, seed + 9, at::kFloat);
      const auto exact = test::converted(inputs, at::kDouble);
      const auto expected =
          test::output_and_gradients(test::ssd_on(layout, Path::reference), exact, upstream);
      check_close(test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs, upstream),
                  expected, 4e-6);
      check_close(test::output_and_gradients(test::ssd_on(layout, Path::composite, 16), inputs, upstream),
                  expected, 4e-6);
      check_close(test::output_and_gradients(test::ssd_on(layout, Path::composite, 16), exact, upstream),
                  expected, 1e-12);
    }
  }
}

TEST_CASE("ssd holds over two thousand tokens") {
  const auto layout = test::layout_of({2000, 7});
  const auto inputs = test::converted(test::random_ssd_inputs(2007, {2, 4, 1, 8}, 7), at::kFloat);
  const auto upstream = test::random_normal({2007, 2, 4}, 8, at::kFloat);
  const auto exact = test::converted(inputs, at::kDouble);
  const auto expected = test::output_and_gradients(test::ssd_on(layout, Path::reference), exact, upstream);
  check_close(test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs, upstream), expected,
              4e-6);
  // 667 chunks of 3: the states are combined in pieces of pieces.
  for (const int64_t chunk_size : {3, 64}) {
    check_close(
        test::output_and_gradients(test::ssd_on(layout, Path::composite, chunk_size), exact, upstream),
        expected, 1e-12);
  }
  const auto state = ops::ssd_final_state(test::ssd_inputs(exact), layout);
  CHECK(state.sizes() == at::IntArrayRef({2, 2, 4, 8}));
}

TEST_CASE("ssd in bf16 computes in fp32") {
  const auto layout = test::layout_of({70, 9});
  const auto inputs = test::converted(test::random_ssd_inputs(79, {4, 8, 1, 16}, 3), at::kBFloat16);
  const auto upstream = test::random_normal({79, 4, 8}, 4, at::kBFloat16);
  const auto expected = test::output_and_gradients(test::ssd_on(layout, Path::reference),
                                                   test::converted(inputs, at::kDouble), upstream);
  const auto found = test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs, upstream);
  CHECK(found[0].scalar_type() == at::kBFloat16);
  check_close(found, expected, 4e-3);
}

TEST_CASE("ssd stays right where steps and decays are far out of range") {
  const auto layout = test::layout_of({100});
  auto inputs = test::converted(test::random_ssd_inputs(100, {2, 4, 1, 8}, 5), at::kFloat);
  inputs[1] = inputs[1] * 40;
  inputs[2] = at::tensor({-60.0f, -1e-3f});
  const auto upstream = test::random_normal({100, 2, 4}, 6, at::kFloat);
  const auto expected = test::output_and_gradients(test::ssd_on(layout, Path::reference),
                                                   test::converted(inputs, at::kDouble), upstream);
  check_close(test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs, upstream), expected,
              4e-6);
  check_close(test::output_and_gradients(test::ssd_on(layout, Path::composite), inputs, upstream), expected,
              4e-6);
}

TEST_CASE("ssd reads slices of wider rows") {
  const auto layout = test::layout_of({20, 33});
  const int64_t T = 53, H = 4, P = 4, G = 2, N = 6;
  auto inputs = test::converted(test::random_ssd_inputs(T, {H, P, G, N}, 30), at::kFloat);
  const auto upstream = test::random_normal({T, H, P}, 31, at::kFloat);
  const auto expected = test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs, upstream);
  const auto wide = at::cat({inputs[0].flatten(1), inputs[3].flatten(1), inputs[4].flatten(1), inputs[1]}, 1);
  const auto slice = [&](int64_t from, at::IntArrayRef rest) {
    return wide.narrow(1, from, c10::multiply_integers(rest)).unflatten(1, rest);
  };
  inputs[0] = slice(0, {H, P});
  inputs[3] = slice(H * P, {G, N});
  inputs[4] = slice(H * P + G * N, {G, N});
  inputs[1] = slice(H * P + 2 * G * N, {H, 1}).squeeze(2);
  REQUIRE(inputs[0].stride(0) == wide.size(1));
  const auto found = test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs, upstream);
  for (size_t i = 0; i < found.size(); ++i) CHECK(test::bitwise_equal(found[i], expected[i]));
  // Strides that no kernel reads in place.
  inputs[0] = inputs[0].transpose(1, 2).contiguous().transpose(1, 2);
  const auto transposed = test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs,
                                                     upstream.transpose(1, 2).contiguous().transpose(1, 2));
  for (size_t i = 0; i < found.size(); ++i)
    CHECK(test::bitwise_equal(transposed[i].contiguous(), expected[i]));
}

TEST_CASE("ssd gives the same bytes for any number of threads") {
  const int before = at::get_num_threads();
  for (const std::vector<int64_t>& lengths :
       {std::vector<int64_t>{300}, {40, 7, 90, 1, 16, 33, 2, 50, 20, 64}}) {
    const auto layout = test::layout_of(lengths);
    const auto inputs =
        test::converted(test::random_ssd_inputs(layout.total(), {8, 16, 1, 32}, 40), at::kFloat);
    const auto upstream = test::random_normal({layout.total(), 8, 16}, 41, at::kFloat);
    at::set_num_threads(1);
    const auto one = test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs, upstream);
    at::set_num_threads(2);
    const auto two = test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs, upstream);
    for (size_t i = 0; i < one.size(); ++i) CHECK(test::bitwise_equal(one[i], two[i]));
  }
  at::set_num_threads(before);
}

TEST_CASE("ssd keeps packed sequences apart") {
  const auto lengths = test::random_lengths(12, 60, 50);
  const auto layout = test::layout_of(lengths);
  const auto inputs = test::converted(test::random_ssd_inputs(layout.total(), {4, 8, 2, 6}, 51), at::kFloat);
  const auto together = ops::ssd(test::ssd_inputs(inputs), layout);
  const auto states = ops::ssd_final_state(test::ssd_inputs(inputs), layout);
  for (int64_t b = 0; b < layout.batch(); ++b) {
    const auto alone = test::layout_of({layout.seqlen(b)});
    Tensors own = inputs;
    for (const size_t i : {0, 1, 3, 4}) own[i] = inputs[i].narrow(0, layout.offsets[b], layout.seqlen(b));
    const auto y = ops::ssd(test::ssd_inputs(own), alone);
    CHECK(test::bitwise_equal(y, together.narrow(0, layout.offsets[b], layout.seqlen(b))));
    CHECK(relative_error(ops::ssd_final_state(test::ssd_inputs(own), alone)[0], states[b]) <= 1e-6);
  }
}

TEST_CASE("ssd_step walks a sequence as ssd does, and ends in its final state") {
  const auto layout = test::layout_of({70});
  for (const auto type : {at::kDouble, at::kFloat}) {
    const auto inputs = test::converted(test::random_ssd_inputs(70, {6, 5, 2, 4}, 80), type);
    Tensors y;
    at::Tensor state = at::zeros({6, 5, 4}, at::TensorOptions().dtype(type));
    for (int64_t t = 0; t < 70; ++t) {
      auto token = inputs;
      for (const size_t i : {0, 1, 3, 4}) token[i] = inputs[i].narrow(0, t, 1);
      y.push_back(ops::ssd_step(test::ssd_inputs(token), state));
    }
    const double tolerance = type == at::kDouble ? 1e-13 : 2e-6;
    CHECK(relative_error(at::cat(y), ops::ssd(test::ssd_inputs(inputs), layout, 16)) <= tolerance);
    CHECK(relative_error(state, ops::ssd_final_state(test::ssd_inputs(inputs), layout)[0]) <= tolerance);
    at::Tensor other = at::zeros({6, 4, 5}, state.options());
    CHECK_THROWS_AS(ops::ssd_step(test::ssd_inputs(inputs), state), std::invalid_argument);
    auto token = inputs;
    for (const size_t i : {0, 1, 3, 4}) token[i] = inputs[i].narrow(0, 0, 1);
    CHECK_THROWS_AS(ops::ssd_step(test::ssd_inputs(token), other), std::invalid_argument);
  }
}

TEST_CASE("ssd gives in evaluation what it gives in training") {
  const auto layout = test::layout_of({50, 20});
  const auto inputs = test::converted(test::random_ssd_inputs(70, {4, 8, 1, 6}, 60), at::kFloat);
  const auto trained =
      test::output_and_gradients(test::ssd_on(layout, Path::automatic), inputs, at::Tensor());
  at::NoGradGuard no_grad;
  CHECK(test::bitwise_equal(ops::ssd(test::ssd_inputs(inputs), layout), trained[0]));
}

TEST_CASE("ssd refuses shapes that do not fit") {
  const auto layout = test::layout_of({4});
  const auto good = test::random_ssd_inputs(4, {4, 2, 2, 3}, 70);
  const std::vector<at::Tensor> bad{at::ones({5, 4, 2}), at::ones({4, 3}),    at::ones({3}),
                                    at::ones({4, 3, 3}), at::ones({4, 2, 4}), at::ones({1}),
                                    at::ones({4, 1})};
  for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
    for (size_t i = 0; i < bad.size(); ++i) {
      auto inputs = test::converted(good, at::kFloat);
      inputs[i] = bad[i];
      CHECK_THROWS_AS(ops::ssd(test::ssd_inputs(inputs), layout, 64, path), std::invalid_argument);
    }
  }
  CHECK_THROWS_AS(ops::ssd(test::ssd_inputs(good), layout, 0, Path::composite), std::invalid_argument);
}

}  // namespace
}  // namespace hax
