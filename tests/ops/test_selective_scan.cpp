#include "lib/ops/selective_scan.h"

#include "tests/catch.h"
#include "tests/ops/gpu_checks.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

using ops::PackedLayout;
using ops::Path;
using test::relative_error;
using test::Tensors;

const std::vector<std::string> kNames{"u", "delta", "A", "B", "C", "D", "delta_bias"};

ops::SelectiveScanInputs inputs_of(const Tensors& in) {
  return {in[0], in[1], in[2], in[3], in[4], in[5], in[6]};
}

test::TensorFunction scan_on(const PackedLayout& layout, Path path) {
  return [&layout, path](const Tensors& in) { return ops::selective_scan(inputs_of(in), layout, path); };
}

// fp64 inputs with steps from about 0.05 to 2 and decays from slow to fast.
Tensors random_inputs(int64_t T, int64_t channels, int64_t N, uint32_t seed) {
  return {test::random_normal({T, channels}, seed),
          test::random_normal({T, channels}, seed + 1) - 0.5,
          -test::random_normal({channels, N}, seed + 2).exp(),
          test::random_normal({T, N}, seed + 3),
          test::random_normal({T, N}, seed + 4),
          test::random_normal({channels}, seed + 5),
          test::random_normal({channels}, seed + 6) * 0.5};
}

void check_close(const Tensors& found, const Tensors& expected, double tolerance) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const std::string name = i == 0 ? "y" : "gradient of " + (i <= kNames.size() ? kNames[i - 1] : "z");
    CAPTURE(name);
    CHECK(relative_error(found[i], expected[i]) <= tolerance);
  }
}

TEST_CASE("selective_scan agrees with the official scan", "[golden]") {
  const auto file = Safetensors::open(test::golden_path("selective_scan.safetensors"));
  int cases = 0;
  for (const auto& info : file.tensors()) {
    const auto slash = info.name.find('/');
    if (info.name.substr(slash + 1) != "u") continue;
    ++cases;
    const std::string name = info.name.substr(0, slash + 1);
    CAPTURE(name);
    const auto layout = test::layout_of(std::vector<int64_t>(info.shape[0], info.shape[2]));
    // (batch, channels, L) -> (batch * L, channels)
    const auto packed = [&](const std::string& what) {
      const auto tensor = test::load_tensor(file, name + what);
      return tensor.dim() == 3 ? tensor.transpose(1, 2).flatten(0, 1) : tensor;
    };
    Tensors inputs, expected{packed("out")};
    auto names = kNames;
    names.push_back("z");
    for (const auto& input : names) {
      inputs.push_back(packed(input));
      expected.push_back(packed("grad." + input));
    }
    for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
      CAPTURE(static_cast<int>(path));
      const auto gated = [&](const Tensors& in) { return scan_on(layout, path)(in) * at::silu(in[7]); };
      check_close(test::output_and_gradients(gated, inputs, packed("grad_out")), expected, 6e-6);
    }
    const auto state = ops::selective_scan_final_state(inputs_of(inputs), layout);
    CHECK(relative_error(state, test::load_tensor(file, name + "last_state")) <= 6e-6);
  }
  CHECK(cases > 0);
}

TEST_CASE("selective_scan's gradients are those of its finite differences") {
  const auto layout = test::layout_of({5, 1, 3});
  const auto inputs = random_inputs(9, 4, 3, 10);
  const auto upstream = test::random_normal({9, 4}, 20);
  const auto expected = test::output_and_differences(scan_on(layout, Path::reference), inputs, upstream);
  for (const auto path : {Path::reference, Path::composite}) {
    check_close(test::output_and_gradients(scan_on(layout, path), inputs, upstream), expected, 1e-8);
  }
}

TEST_CASE("selective_scan agrees with its fp64 reference at every shape") {
  const std::vector<std::vector<int64_t>> ragged{{1}, {1, 1, 1}, {17, 1, 64, 33, 5}, {16, 32, 48}, {150, 3}};
  const std::vector<std::pair<int64_t, int64_t>> shapes{{128, 16}, {24, 4}, {1, 1},   {5, 3},
                                                        {16, 1},   {33, 7}, {31, 40}, {200, 2}};
  uint32_t seed = 100;
  for (const auto& lengths : ragged) {
    for (const auto& [channels, N] : shapes) {
      seed += 10;
      CAPTURE(lengths, channels, N);
      const auto layout = test::layout_of(lengths);
      const auto inputs = test::converted(random_inputs(layout.total(), channels, N, seed), at::kFloat);
      const auto upstream = test::random_normal({layout.total(), channels}, seed + 9, at::kFloat);
      const auto exact = test::converted(inputs, at::kDouble);
      const auto expected = test::output_and_gradients(scan_on(layout, Path::reference), exact, upstream);
      for (const auto path : {Path::automatic, Path::composite}) {
        check_close(test::output_and_gradients(scan_on(layout, path), inputs, upstream), expected, 4e-6);
      }
      check_close(test::output_and_gradients(scan_on(layout, Path::composite), exact, upstream), expected,
                  1e-12);
    }
  }
}

TEST_CASE("selective_scan holds over two thousand tokens") {
  const auto layout = test::layout_of({2000, 7});
  const auto inputs = test::converted(random_inputs(2007, 18, 8, 7), at::kFloat);
  const auto upstream = test::random_normal({2007, 18}, 8, at::kFloat);
  const auto exact = test::converted(inputs, at::kDouble);
  const auto expected = test::output_and_gradients(scan_on(layout, Path::reference), exact, upstream);
  check_close(test::output_and_gradients(scan_on(layout, Path::automatic), inputs, upstream), expected, 4e-6);
  check_close(test::output_and_gradients(scan_on(layout, Path::composite), inputs, upstream), expected, 4e-6);
  check_close(test::output_and_gradients(scan_on(layout, Path::composite), exact, upstream), expected, 1e-12);
}

TEST_CASE("selective_scan_step walks a sequence as selective_scan does, and ends in its final state") {
  const auto layout = test::layout_of({70});
  for (const auto type : {at::kDouble, at::kFloat}) {
    const auto inputs = test::converted(random_inputs(70, 6, 4, 80), type);
    const auto token_of = [&](int64_t t) {
      Tensors token = inputs;
      for (const size_t i : {0, 1, 3, 4}) token[i] = inputs[i].narrow(0, t, 1);
      return inputs_of(token);
    };
    Tensors y;
    at::Tensor state = at::zeros({6, 4}, at::TensorOptions().dtype(type));
    for (int64_t t = 0; t < 70; ++t) y.push_back(ops::selective_scan_step(token_of(t), state));
    const double tolerance = type == at::kDouble ? 1e-13 : 2e-6;
    CHECK(relative_error(at::cat(y), ops::selective_scan(inputs_of(inputs), layout)) <= tolerance);
    CHECK(relative_error(state, ops::selective_scan_final_state(inputs_of(inputs), layout)[0]) <= tolerance);
    at::Tensor other = at::zeros({4, 6}, state.options());
    CHECK_THROWS_AS(ops::selective_scan_step(inputs_of(inputs), state), std::invalid_argument);
    CHECK_THROWS_AS(ops::selective_scan_step(token_of(0), other), std::invalid_argument);
  }
}

TEST_CASE("selective_scan's last state is the recurrence's") {
  const auto layout = test::layout_of({40, 1, 7});
  const auto in = random_inputs(48, 5, 3, 90);
  const auto dt = at::softplus(in[1] + in[6]);
  const auto states = ops::selective_scan_final_state(inputs_of(in), layout);
  REQUIRE(states.sizes() == at::IntArrayRef({3, 5, 3}));
  for (int64_t b = 0; b < 3; ++b) {
    at::Tensor h = at::zeros({5, 3}, at::kDouble);
    for (int64_t t = layout.offsets[b]; t < layout.offsets[b + 1]; ++t) {
      h = (dt[t].unsqueeze(1) * in[2]).exp() * h + (dt[t] * in[0][t]).unsqueeze(1) * in[3][t];
    }
    CHECK(relative_error(states[b], h) <= 1e-13);
  }
}

TEST_CASE("selective_scan in bf16 computes in fp32") {
  const auto layout = test::layout_of({70, 9});
  const auto inputs = test::converted(random_inputs(79, 20, 16, 3), at::kBFloat16);
  const auto upstream = test::random_normal({79, 20}, 4, at::kBFloat16);
  const auto expected = test::output_and_gradients(scan_on(layout, Path::reference),
                                                   test::converted(inputs, at::kDouble), upstream);
  const auto found = test::output_and_gradients(scan_on(layout, Path::automatic), inputs, upstream);
  CHECK(found[0].scalar_type() == at::kBFloat16);
  check_close(found, expected, 4e-3);
}

TEST_CASE("selective_scan stays right where steps and decays are far out of range") {
  const auto layout = test::layout_of({100});
  auto inputs = test::converted(random_inputs(100, 4, 2, 5), at::kFloat);
  inputs[1] = inputs[1] * 40;
  inputs[2] = at::tensor({-60.0f, -1e-3f, -1e-3f, -60.0f, -1e4f, -1e-6f, -1.0f, -1e-3f}).view({4, 2});
  const auto upstream = test::random_normal({100, 4}, 6, at::kFloat);
  const auto expected = test::output_and_gradients(scan_on(layout, Path::reference),
                                                   test::converted(inputs, at::kDouble), upstream);
  for (const auto path : {Path::automatic, Path::composite}) {
    check_close(test::output_and_gradients(scan_on(layout, path), inputs, upstream), expected, 4e-6);
  }
}

TEST_CASE("selective_scan reads slices of wider rows") {
  const auto layout = test::layout_of({20, 33});
  const int64_t T = 53, channels = 20, N = 6;
  auto inputs = test::converted(random_inputs(T, channels, N, 30), at::kFloat);
  const auto upstream = test::random_normal({T, channels}, 31, at::kFloat);
  const auto expected = test::output_and_gradients(scan_on(layout, Path::automatic), inputs, upstream);
  const auto check_same = [&] {
    const auto found = test::output_and_gradients(scan_on(layout, Path::automatic), inputs, upstream);
    for (size_t i = 0; i < found.size(); ++i) CHECK(test::bitwise_equal(found[i].contiguous(), expected[i]));
  };
  const auto wide = at::cat({inputs[0], inputs[1], inputs[3], inputs[4]}, 1);
  const auto slices = wide.split_with_sizes({channels, channels, N, N}, 1);
  inputs[0] = slices[0];
  inputs[1] = slices[1];
  inputs[3] = slices[2];
  inputs[4] = slices[3];
  REQUIRE(inputs[0].stride(0) == wide.size(1));
  check_same();
  // Strides that no kernel reads in place.
  for (const size_t i : {0, 1, 2, 3, 4}) inputs[i] = inputs[i].t().contiguous().t();
  check_same();
}

TEST_CASE("selective_scan gives the same bytes for any number of threads") {
  const int before = at::get_num_threads();
  for (const std::vector<int64_t>& lengths :
       {std::vector<int64_t>{300}, {40, 7, 90, 1, 16, 33, 2, 50, 20, 64}}) {
    const auto layout = test::layout_of(lengths);
    const auto inputs = test::converted(random_inputs(layout.total(), 128, 16, 40), at::kFloat);
    const auto upstream = test::random_normal({layout.total(), 128}, 41, at::kFloat);
    at::set_num_threads(1);
    const auto one = test::output_and_gradients(scan_on(layout, Path::automatic), inputs, upstream);
    at::set_num_threads(2);
    const auto two = test::output_and_gradients(scan_on(layout, Path::automatic), inputs, upstream);
    for (size_t i = 0; i < one.size(); ++i) CHECK(test::bitwise_equal(one[i], two[i]));
  }
  at::set_num_threads(before);
}

TEST_CASE("selective_scan keeps packed sequences apart") {
  const auto lengths = test::random_lengths(12, 60, 50);
  const auto layout = test::layout_of(lengths);
  const auto inputs = test::converted(random_inputs(layout.total(), 24, 6, 51), at::kFloat);
  for (const auto& [path, tolerance] : {std::pair{Path::automatic, 0.0}, std::pair{Path::composite, 1e-6}}) {
    const auto together = ops::selective_scan(inputs_of(inputs), layout, path);
    for (int64_t b = 0; b < layout.batch(); ++b) {
      const auto alone = test::layout_of({layout.seqlen(b)});
      Tensors own = inputs;
      for (const size_t i : {0, 1, 3, 4}) own[i] = inputs[i].narrow(0, layout.offsets[b], layout.seqlen(b));
      CHECK(relative_error(ops::selective_scan(inputs_of(own), alone, path),
                           together.narrow(0, layout.offsets[b], layout.seqlen(b))) <= tolerance);
    }
  }
}

TEST_CASE("selective_scan gives in evaluation what it gives in training") {
  const auto layout = test::layout_of({50, 20});
  const auto inputs = test::converted(random_inputs(70, 24, 6, 60), at::kFloat);
  const auto trained = test::output_and_gradients(scan_on(layout, Path::automatic), inputs, at::Tensor());
  at::NoGradGuard no_grad;
  CHECK(test::bitwise_equal(ops::selective_scan(inputs_of(inputs), layout), trained[0]));
}

TEST_CASE("selective_scan refuses shapes that do not fit") {
  const auto layout = test::layout_of({4});
  const auto good = random_inputs(4, 6, 3, 70);
  const std::vector<at::Tensor> bad{at::ones({5, 6}), at::ones({4, 1}), at::ones({6}),   at::ones({4, 2}),
                                    at::ones({4, 4}), at::ones({1}),    at::ones({6, 1})};
  for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
    for (size_t i = 0; i < bad.size(); ++i) {
      auto inputs = test::converted(good, at::kFloat);
      inputs[i] = bad[i];
      CHECK_THROWS_AS(ops::selective_scan(inputs_of(inputs), layout, path), std::invalid_argument);
    }
  }
}

std::vector<std::string> output_and_gradient_names() {
  std::vector<std::string> names{"y"};
  for (const auto& name : kNames) names.push_back("gradient of " + name);
  return names;
}

const test::OpOn kScanOn = [](const PackedLayout& layout, Path path) { return scan_on(layout, path); };

TEST_CASE("selective_scan on a GPU agrees with the fp64 reference", "[gpu]") {
  const std::vector<std::vector<int64_t>> ragged{{100, 1, 64, 37}, {1},         {1, 1, 1},
                                                 {64, 64},         {63, 65, 2}, {300, 5, 7, 9, 130}};
  uint32_t seed = 200;
  for (const auto& lengths : ragged) {
    for (const auto& [channels, N] : std::vector<std::pair<int64_t, int64_t>>{
             {128, 16}, {24, 5}, {65, 4}, {1, 1}, {130, 7}, {16, 8}, {64, 32}}) {
      seed += 10;
      const auto inputs = random_inputs(test::layout_of(lengths).total(), channels, N, seed);
      const auto upstream = test::random_normal({inputs[0].size(0), channels}, seed + 9);
      CAPTURE(lengths, channels, N);
      for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        test::check_on_gpu(kScanOn, lengths, inputs, upstream, output_and_gradient_names(), dtype, 4e-6);
      }
    }
  }
}

// Enough sequences, for any number of channels, that blocks walk whole ones.
TEST_CASE("selective_scan on a GPU agrees with the fp64 reference on many short sequences", "[gpu]") {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 250; ++i) lengths.push_back(1 + i * 37 % 40);
  lengths[3] = lengths[4] = 45;  // longer than a tile
  uint32_t seed = 700;
  for (const auto& [channels, N] :
       std::vector<std::pair<int64_t, int64_t>>{{128, 16}, {24, 5}, {65, 4}, {16, 8}, {40, 32}, {6, 2}}) {
    seed += 10;
    const auto inputs = random_inputs(test::layout_of(lengths).total(), channels, N, seed);
    const auto upstream = test::random_normal({inputs[0].size(0), channels}, seed + 9);
    CAPTURE(channels, N);
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      test::check_on_gpu(kScanOn, lengths, inputs, upstream, output_and_gradient_names(), dtype, 4e-6);
    }
  }
}

TEST_CASE("selective_scan on a GPU holds over two thousand tokens", "[gpu]") {
  const auto inputs = random_inputs(2007, 20, 16, 7);
  const auto upstream = test::random_normal({2007, 20}, 8);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    test::check_on_gpu(kScanOn, {2000, 7}, inputs, upstream, output_and_gradient_names(), dtype, 4e-6);
  }
}

TEST_CASE("selective_scan on a GPU leaves zeros behind the last sequence", "[gpu]") {
  const auto inputs = random_inputs(200, 128, 16, 90);
  const auto upstream = test::random_normal({200, 128}, 91, at::kFloat).to(at::kCUDA);
  for (const int64_t used : {80, 64, 199}) {
    CAPTURE(used);
    test::check_rows_behind_the_end(kScanOn, inputs, {true, true, false, true, true, false, false}, upstream,
                                    used);
  }
  // So many channels that blocks walk whole sequences.
  const auto wide = random_inputs(150, 1600, 16, 92);
  const auto wide_upstream = test::random_normal({150, 1600}, 93, at::kFloat).to(at::kCUDA);
  test::check_rows_behind_the_end(kScanOn, wide, {true, true, false, true, true, false, false}, wide_upstream,
                                  100);
}

}  // namespace
}  // namespace hax
