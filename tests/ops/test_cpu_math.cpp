// The kernels' own elementary functions: this program compiles the portable form of lib/ops/cpu/math.h, and
// the form that the kernels are compiled to is reached through ops that reduce to one function.
#include <cmath>
#include <functional>
#include <limits>

#include "lib/ops/causal_conv1d.h"
#include "lib/ops/cpu/math.h"
#include "lib/ops/ssd.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

constexpr double kTolerance = 2.5e-7;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Every scale of fp32, both signs, and a fine grid where the functions bend.
std::vector<float> arguments() {
  std::vector<float> xs{0.0f, -0.0f};
  for (int exponent = -149; exponent < 128; ++exponent) {
    for (const double mantissa : {1.0, 1.2345, 1.5, 1.9999}) {
      for (const double sign : {-1.0, 1.0})
        xs.push_back(static_cast<float>(sign * std::ldexp(mantissa, exponent)));
    }
  }
  for (double x = -110; x < 110; x += 0.00123) xs.push_back(static_cast<float>(x));
  return xs;
}

constexpr double kLeastNormal = std::numeric_limits<float>::min();

// The worst relative error over results of at least `smallest`; below, the error in units of `smallest` must
// stay below 1e-6.
double worst_error(const std::vector<float>& xs, const std::function<float(size_t)>& mine,
                   const std::function<double(double)>& exact, double smallest = kLeastNormal) {
  double worst = 0;
  for (size_t i = 0; i < xs.size(); ++i) {
    const double expected = exact(xs[i]), found = mine(i);
    const double largest = std::numeric_limits<float>::max();
    if (std::abs(expected) > largest) {
      if (!(std::abs(found) > largest && (found > 0) == (expected > 0))) return kInfinity;
    } else if (std::abs(expected) < smallest) {
      if (!(std::abs(found - expected) < 1e-6 * smallest)) return kInfinity;
    } else {
      const double error = std::abs(found - expected) / std::abs(expected);
      if (!(error <= worst)) worst = std::isnan(error) ? kInfinity : error;
    }
  }
  return worst;
}

double exact_sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
// For x below -87 a subnormal sigmoid has lost digits before x multiplies it.
double exact_silu(double x) { return x * exact_sigmoid(x); }
constexpr double kSiluSmallest = 128 * kLeastNormal;
double exact_softplus(double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::abs(x))); }

TEST_CASE("exp, sigmoid, SiLU and softplus hold their relative error over all of fp32") {
  const auto xs = arguments();
  CHECK(worst_error(
            xs, [&](size_t i) { return cpu::exp(xs[i]); }, [](double x) { return std::exp(x); }) <
        kTolerance);
  CHECK(worst_error(
            xs, [&](size_t i) { return cpu::sigmoid(xs[i]); }, exact_sigmoid) < kTolerance);
  CHECK(worst_error(
            xs, [&](size_t i) { return cpu::softplus(xs[i]); }, exact_softplus) < kTolerance);
  CHECK(worst_error(
            xs, [&](size_t i) { return cpu::silu(xs[i]); }, exact_silu, kSiluSmallest) < 2 * kTolerance);
}

TEST_CASE("the kernels' functions keep infinities and NaN") {
  CHECK(cpu::exp(kInfinity) == kInfinity);
  CHECK(cpu::exp(-kInfinity) == 0.0f);
  CHECK(cpu::exp(0.0f) == 1.0f);
  CHECK(cpu::sigmoid(kInfinity) == 1.0f);
  CHECK(cpu::sigmoid(-kInfinity) == 0.0f);
  CHECK(cpu::softplus(kInfinity) == kInfinity);
  CHECK(cpu::softplus(-kInfinity) == 0.0f);
  for (const float nan : {kNan, -kNan}) {
    CHECK(std::isnan(cpu::exp(nan)));
    CHECK(std::isnan(cpu::sigmoid(nan)));
    CHECK(std::isnan(cpu::silu(nan)));
    CHECK(std::isnan(cpu::softplus(nan)));
  }
}

TEST_CASE("inside the kernels the functions are as good") {
  std::vector<float> xs = arguments();
  const auto count = static_cast<int64_t>(xs.size());
  std::vector<int64_t> lengths(xs.size(), 1);
  const auto layout = test::layout_of(lengths);
  const auto column = at::tensor(xs).view({count, 1});
  const auto one = at::ones({1}), each = at::ones({count, 1, 1});

  // One tap of 1 and no bias: SiLU(x).
  const auto silu = ops::causal_conv1d(column, at::ones({1, 1}), at::zeros({1}), layout);
  CHECK(worst_error(
            xs, [&](size_t i) { return silu.const_data_ptr<float>()[i]; }, exact_silu, kSiluSmallest) <
        2 * kTolerance);

  // Sequences of one token with x = B = C = 1 and D = 0: y = softplus(dt).
  const auto softplus = ops::ssd({each, column, -one, each, each, at::zeros({1}), at::zeros({1})}, layout);
  CHECK(worst_error(
            xs, [&](size_t i) { return softplus.const_data_ptr<float>()[i]; }, exact_softplus) < kTolerance);
}

TEST_CASE("a NaN goes through the kernels") {
  const auto layout = test::layout_of({40});
  auto x = at::ones({40, 1});
  x[20] = kNan;
  const auto y = ops::causal_conv1d(x, at::ones({1, 4}), at::zeros({1}), layout);
  CHECK(y.isnan().sum().item<int64_t>() == 4);
  const auto ones = at::ones({40, 1, 1}), one = at::ones({1});
  const auto from_x = ops::ssd({x.view({40, 1, 1}), at::ones({40, 1}), -one, ones, ones, one, one}, layout);
  CHECK(from_x.narrow(0, 20, 20).isnan().all().item<bool>());
  const auto from_dt = ops::ssd({ones, x, -one, ones, ones, one, one}, layout);
  CHECK(from_dt.narrow(0, 20, 20).isnan().all().item<bool>());
}

}  // namespace
}  // namespace hax
