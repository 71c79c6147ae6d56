#include "lib/ops/linear_scan.h"

#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax {
namespace {

using test::relative_error;
using test::Tensors;

at::Tensor row_by_row(const Tensors& in) {
  std::vector<at::Tensor> h{in[1][0]};
  for (int64_t t = 1; t < in[1].size(0); ++t) h.push_back(in[0][t] * h.back() + in[1][t]);
  return at::stack(h);
}

at::Tensor scanned(const Tensors& in) { return ops::linear_scan(in[0], in[1]); }

TEST_CASE("linear_scan is the recurrence, with its gradients") {
  // One row, one run, one row more, whole runs, runs of runs (1024 rows and more).
  for (const int64_t T : {1, 2, 31, 32, 33, 64, 100, 1024, 1025, 3000}) {
    CAPTURE(T);
    Tensors in{test::random_normal({T, 3, 2}, 1).sigmoid(), test::random_normal({T, 3, 2}, 2)};
    const auto upstream = test::random_normal({T, 3, 2}, 3);
    in[0].select(1, 1).mul_(-1);
    const auto expected = test::output_and_gradients(row_by_row, in, upstream);
    const auto found = test::output_and_gradients(scanned, in, upstream);
    for (size_t i = 0; i < 3; ++i) {
      CAPTURE(i);
      // The first row's a is multiplied with nothing.
      if (T == 1 && i == 1) {
        CHECK(found[i].abs().max().item<double>() == 0.0);
      } else {
        CHECK(relative_error(found[i], expected[i]) <= 1e-13);
      }
    }
  }
}

TEST_CASE("linear_scan forgets where a is zero") {
  const int64_t T = 200;
  at::Tensor a = test::random_normal({T, 2}, 4).sigmoid();
  const at::Tensor x = test::random_normal({T, 2}, 5);
  a[70].zero_();
  const at::Tensor whole = ops::linear_scan(a, x);
  CHECK(relative_error(whole.slice(0, 70), row_by_row({a.slice(0, 70), x.slice(0, 70)})) <= 1e-13);
  CHECK(relative_error(whole.slice(0, 0, 70), row_by_row({a.slice(0, 0, 70), x.slice(0, 0, 70)})) <= 1e-13);
}

TEST_CASE("linear_scan leaves its inputs as they are, and reads any strides") {
  for (const int64_t T : {20, 64, 65}) {
    const at::Tensor a = test::random_normal({4, T}, 6).sigmoid().t(), x = test::random_normal({4, T}, 7).t();
    const at::Tensor a_before = a.clone(), x_before = x.clone();
    const at::Tensor h = ops::linear_scan(a, x);
    CHECK(a.equal(a_before));
    CHECK(x.equal(x_before));
    CHECK(h.equal(ops::linear_scan(a.contiguous(), x.contiguous())));
  }
}

TEST_CASE("linear_scan refuses shapes that do not fit") {
  CHECK_THROWS_AS(ops::linear_scan(at::ones({3, 2}), at::ones({3, 1})), std::invalid_argument);
  CHECK_THROWS_AS(ops::linear_scan(at::ones({0, 2}), at::ones({0, 2})), std::invalid_argument);
}

TEST_CASE("linear_scan on a GPU is that on the CPU", "[gpu]") {
  const Tensors in{test::random_normal({1500, 5}, 8).sigmoid(), test::random_normal({1500, 5}, 9)};
  const auto upstream = test::random_normal({1500, 5}, 10);
  const auto expected = test::output_and_gradients(scanned, in, upstream);
  const auto found =
      test::output_and_gradients(scanned, test::converted(in, at::kDouble, at::kCUDA), upstream);
  for (size_t i = 0; i < 3; ++i) CHECK(relative_error(found[i], expected[i]) <= 1e-13);
}

}  // namespace
}  // namespace hax
