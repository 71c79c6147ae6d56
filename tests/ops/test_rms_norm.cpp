#include "lib/ops/rms_norm.h"

#include <tuple>

#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

using ops::Path;
using test::relative_error;
using test::Tensors;

constexpr double kEps = 1e-5;

// {x, z, weight}, or {x, weight} for the plain norm.
test::TensorFunction norm_on(Path path, double eps = kEps) {
  return [path, eps](const Tensors& in) {
    return in.size() == 3 ? ops::gated_rms_norm(in[0], in[1], in[2], eps, path)
                          : ops::rms_norm(in[0], in[1], eps, path);
  };
}

Tensors random_inputs(int64_t rows, int64_t d, bool gated, uint32_t seed) {
  Tensors inputs{test::random_normal({rows, d}, seed)};
  if (gated) inputs.push_back(test::random_normal({rows, d}, seed + 1) * 2);
  inputs.push_back(test::random_normal({d}, seed + 2));
  return inputs;
}

void check_close(const Tensors& found, const Tensors& expected, double tolerance) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    CHECK(relative_error(found[i], expected[i]) <= tolerance);
  }
}

TEST_CASE("both norms agree with the official references", "[golden]") {
  const auto file = Safetensors::open(test::golden_path("gated_rmsnorm.safetensors"));
  const double eps = std::stod(file.metadata().at("eps"));
  int cases = 0;
  for (const auto& info : file.tensors()) {
    const auto slash = info.name.find('/');
    if (info.name.substr(slash + 1) != "x") continue;
    ++cases;
    const std::string name = info.name.substr(0, slash + 1);
    CAPTURE(name);
    const auto packed = [&](const std::string& what) {
      return test::load_tensor(file, name + what).reshape({-1, info.shape.back()});
    };
    Tensors inputs{packed("x")}, expected{packed("out"), packed("grad.x")};
    if (file.contains(name + "z")) {
      inputs.push_back(packed("z"));
      expected.push_back(packed("grad.z"));
    }
    inputs.push_back(packed("weight")[0]);
    expected.push_back(packed("grad.weight")[0]);
    for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
      check_close(test::output_and_gradients(norm_on(path, eps), inputs, packed("grad_out")), expected, 6e-6);
    }
  }
  CHECK(cases > 0);
}

TEST_CASE("the norms' gradients are those of their finite differences") {
  for (const bool gated : {false, true}) {
    const auto inputs = random_inputs(4, 5, gated, 1);
    const auto upstream = test::random_normal({4, 5}, 9);
    const auto expected = test::output_and_differences(norm_on(Path::reference), inputs, upstream);
    for (const auto path : {Path::reference, Path::composite}) {
      check_close(test::output_and_gradients(norm_on(path), inputs, upstream), expected, 1e-8);
    }
  }
}

TEST_CASE("the norms agree with their fp64 reference at every size") {
  uint32_t seed = 10;
  for (const bool gated : {false, true}) {
    for (const int64_t rows : {1, 63, 64, 65, 300}) {
      for (const int64_t d : {1, 4, 37, 128}) {
        CAPTURE(gated, rows, d);
        auto inputs = test::converted(random_inputs(rows, d, gated, ++seed), at::kFloat);
        // With one feature y is the sign of x until eps matters: keep the gradient from vanishing.
        if (d == 1) inputs[0] = inputs[0] * 3e-3;
        const auto upstream = test::random_normal({rows, d}, seed + 5, at::kFloat);
        const auto exact = test::converted(inputs, at::kDouble);
        const auto expected = test::output_and_gradients(norm_on(Path::reference), exact, upstream);
        check_close(test::output_and_gradients(norm_on(Path::automatic), inputs, upstream), expected, 5e-6);
        check_close(test::output_and_gradients(norm_on(Path::composite), inputs, upstream), expected, 5e-6);
        check_close(test::output_and_gradients(norm_on(Path::composite), exact, upstream), expected, 1e-12);
      }
    }
  }
}

TEST_CASE("the norms give zeros and finite gradients for a zero row") {
  for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
    for (const size_t zero : {0, 1}) {
      auto inputs = test::converted(random_inputs(3, 8, true, 4), at::kFloat);
      inputs[zero][1] = 0;
      const auto found = test::output_and_gradients(norm_on(path), inputs, at::Tensor());
      CHECK(found[0][1].equal(at::zeros({8})));
      for (const auto& tensor : found) CHECK(tensor.isfinite().all().item<bool>());
    }
  }
}

TEST_CASE("the norms read slices of wider rows") {
  const auto inputs = test::converted(random_inputs(70, 24, true, 5), at::kFloat);
  const auto upstream = test::random_normal({70, 24}, 6, at::kFloat);
  const auto expected = test::output_and_gradients(norm_on(Path::automatic), inputs, upstream);
  const auto wide = at::cat({inputs[1], at::ones({70, 3}), inputs[0]}, 1);
  const auto found = test::output_and_gradients(
      norm_on(Path::automatic), {wide.narrow(1, 27, 24), wide.narrow(1, 0, 24), inputs[2]}, upstream);
  for (size_t i = 0; i < found.size(); ++i) CHECK(test::bitwise_equal(found[i], expected[i]));
}

TEST_CASE("the norms give the same bytes for any number of threads") {
  const int before = at::get_num_threads();
  const auto inputs = test::converted(random_inputs(500, 40, true, 7), at::kFloat);
  const auto upstream = test::random_normal({500, 40}, 8, at::kFloat);
  at::set_num_threads(1);
  const auto one = test::output_and_gradients(norm_on(Path::automatic), inputs, upstream);
  at::set_num_threads(2);
  const auto two = test::output_and_gradients(norm_on(Path::automatic), inputs, upstream);
  at::set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) CHECK(test::bitwise_equal(one[i], two[i]));
}

TEST_CASE("the norms refuse shapes that do not fit") {
  CHECK_THROWS_AS(ops::rms_norm(at::ones({3, 2}), at::ones({3}), kEps), std::invalid_argument);
  CHECK_THROWS_AS(ops::gated_rms_norm(at::ones({3, 2}), at::ones({2, 2}), at::ones({2}), kEps),
                  std::invalid_argument);
}

TEST_CASE("the norms on a GPU agree with the fp64 reference", "[gpu]") {
  for (const bool gated : {false, true}) {
    for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 3e-6}, std::pair{at::kBFloat16, 8e-3}}) {
      CAPTURE(gated, at::toString(dtype));
      const auto inputs = test::converted(random_inputs(200, 128, gated, 11), dtype);
      const auto upstream = test::random_normal({200, 128}, 12, dtype);
      const auto expected = test::output_and_gradients(norm_on(Path::reference),
                                                       test::converted(inputs, at::kDouble), upstream);
      check_close(test::output_and_gradients(norm_on(Path::automatic),
                                             test::converted(inputs, dtype, at::kCUDA), upstream),
                  expected, tolerance);
    }
  }
}

// {x, h, weight}, or {x, weight} without h -> sum and norm side by side, in `out`.
test::TensorFunction residual_norm_on(Path path, at::ScalarType out) {
  return [path, out](const Tensors& in) {
    const auto both = in.size() == 3 ? ops::add_rms_norm(in[0], in[1], in[2], kEps, path, out)
                                     : ops::add_rms_norm(in[0], at::Tensor(), in[1], kEps, path, out);
    return at::cat({both.sum.to(out), both.norm}, 1);
  };
}

TEST_CASE("a residual norm is the sum and its norm, with both gradients") {
  for (const bool added : {false, true}) {
    const auto inputs = random_inputs(5, 6, added, 21);
    const auto upstream = test::random_normal({5, 12}, 22);
    const auto f = residual_norm_on(Path::reference, at::kDouble);
    check_close(test::output_and_gradients(f, inputs, upstream),
                test::output_and_differences(f, inputs, upstream), 1e-8);
    const at::Tensor sum = added ? inputs[0] + inputs[1] : inputs[0];
    CHECK(f(inputs).narrow(1, 0, 6).equal(sum));
    CHECK(relative_error(f(inputs).narrow(1, 6, 6), ops::rms_norm(sum, inputs.back(), kEps)) <= 1e-14);
  }
}

test::TensorFunction norm_of_rows_on(const at::Tensor& rows, Path path) {
  return [rows, path](const Tensors& in) {
    return ops::add_rms_norm_of_rows(in[0], in[1], rows.to(in[0].device()), in[2], kEps, path);
  };
}

TEST_CASE("a norm of some rows is those rows of the norm") {
  const auto inputs = random_inputs(7, 6, true, 31);
  const at::Tensor rows = at::tensor({1, 2, 6}, at::kLong);
  const auto upstream = test::random_normal({3, 6}, 32);
  const test::TensorFunction expected = [&](const Tensors& in) {
    return ops::add_rms_norm(in[0], in[1], in[2], kEps).norm.index_select(0, rows);
  };
  for (const auto path : {Path::reference, Path::composite, Path::automatic}) {
    check_close(test::output_and_gradients(norm_of_rows_on(rows, path), inputs, upstream),
                test::output_and_gradients(expected, inputs, upstream), 1e-14);
  }
}

TEST_CASE("a norm of some rows on a GPU, rows that are not in use among them", "[gpu]") {
  for (const auto& [stream, compute, tolerance] :
       {std::tuple{at::kFloat, at::kFloat, 3e-6}, std::tuple{at::kFloat, at::kBFloat16, 8e-3},
        std::tuple{at::kBFloat16, at::kBFloat16, 8e-3}}) {
    for (const auto& [all, d] : {std::pair<int64_t, int64_t>{2, 2}, {700, 64}, {150, 130}}) {
      CAPTURE(all, d, at::toString(stream), at::toString(compute));
      auto inputs = random_inputs(all, d, true, 33);
      inputs[0] = inputs[0].to(stream), inputs[1] = inputs[1].to(compute),
      inputs[2] = inputs[2].to(at::kFloat);
      const at::Tensor used = at::arange(all - 1, -1, -3, at::kLong);
      const at::Tensor rows = at::cat({used, at::full({5}, -1, at::kLong)});
      at::Tensor upstream = test::random_normal({rows.size(0), d}, 34, compute);
      upstream.narrow(0, used.size(0), 5).zero_();
      const auto expected = test::output_and_gradients(norm_of_rows_on(rows, Path::reference),
                                                       test::converted(inputs, at::kDouble), upstream);
      Tensors on_gpu;
      for (const auto& input : inputs) on_gpu.push_back(input.to(at::kCUDA));
      const auto f = norm_of_rows_on(rows, Path::automatic);
      auto found = test::output_and_gradients(f, on_gpu, upstream);
      CHECK(found[0].narrow(0, used.size(0), 5).abs().max().item<double>() == 0.0);
      found[0].narrow(0, used.size(0), 5).copy_(expected[0].narrow(0, used.size(0), 5));
      check_close(found, expected, tolerance);
    }
  }
}

TEST_CASE("a residual norm on a GPU agrees with the fp64 reference", "[gpu]") {
  struct Types {
    at::ScalarType stream, compute;
    double tolerance;
  };
  for (const Types& types : {Types{at::kFloat, at::kFloat, 3e-6}, Types{at::kFloat, at::kBFloat16, 8e-3},
                             Types{at::kBFloat16, at::kBFloat16, 8e-3}}) {
    for (const bool added : {false, true}) {
      for (const auto& [rows, d] : {std::pair<int64_t, int64_t>{1, 2}, {333, 64}, {70, 130}}) {
        CAPTURE(added, rows, d, at::toString(types.stream), at::toString(types.compute));
        auto inputs = random_inputs(rows, d, added, 23);
        inputs[0] = inputs[0].to(types.stream);
        if (added) inputs[1] = inputs[1].to(types.compute);
        inputs.back() = inputs.back().to(at::kFloat);
        const auto upstream = test::random_normal({rows, 2 * d}, 24, types.compute);
        const auto expected = test::output_and_gradients(residual_norm_on(Path::reference, at::kDouble),
                                                         test::converted(inputs, at::kDouble), upstream);
        Tensors on_gpu;
        for (const auto& input : inputs) on_gpu.push_back(input.to(at::kCUDA));
        const auto f = residual_norm_on(Path::automatic, types.compute);
        const auto found = test::output_and_gradients(f, on_gpu, upstream);
        check_close(found, expected, types.tolerance);
        const auto again = test::output_and_gradients(f, on_gpu, upstream);
        for (size_t i = 0; i < found.size(); ++i) CHECK(test::bitwise_equal(found[i].cpu(), again[i].cpu()));
      }
    }
  }
}

}  // namespace
}  // namespace hax
