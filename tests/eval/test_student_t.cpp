// Quantiles of Student's t against published ones and against closed forms.
#include <cmath>
#include <numbers>
#include <stdexcept>

#include "lib/eval/student_t.h"
#include "tests/catch.h"

namespace hax::test {

TEST_CASE("two-sided quantiles of Student's t") {
  // Tables of 95 % and 99 %, to the digits printed there.
  const struct {
    int64_t freedom;
    double p95, p99;
  } cases[] = {{1, 12.7062, 63.6567}, {2, 4.30265, 9.92484},  {3, 3.18245, 5.84091},  {4, 2.77645, 4.60409},
               {9, 2.26216, 3.24984}, {30, 2.04227, 2.75000}, {120, 1.97993, 2.61742}};
  for (const auto& c : cases) {
    CAPTURE(c.freedom);
    CHECK(student_t_two_sided(0.95, c.freedom) == Approx(c.p95).epsilon(3e-6));
    CHECK(student_t_two_sided(0.99, c.freedom) == Approx(c.p99).epsilon(3e-6));
    CHECK(student_t_two_sided(0.0, c.freedom) == Approx(0.0).margin(1e-12));
    CHECK(student_t_central(student_t_two_sided(0.7, c.freedom), c.freedom) == Approx(0.7).epsilon(1e-12));
  }
  // One degree is Cauchy's distribution, two have a closed form; the normal one is the limit.
  CHECK(student_t_two_sided(0.95, 1) == Approx(std::tan(0.475 * std::numbers::pi)).epsilon(1e-12));
  CHECK(student_t_two_sided(0.9, 2) == Approx(0.9 * std::sqrt(2.0 / (1.0 - 0.81))).epsilon(1e-12));
  CHECK(student_t_two_sided(0.95, 100000) == Approx(1.959964).epsilon(2e-5));
}

TEST_CASE("arguments outside the distribution are refused") {
  CHECK_THROWS_AS(student_t_two_sided(1.0, 3), std::invalid_argument);
  CHECK_THROWS_AS(student_t_two_sided(-0.1, 3), std::invalid_argument);
  CHECK_THROWS_AS(student_t_two_sided(std::nan(""), 3), std::invalid_argument);
  CHECK_THROWS_AS(student_t_central(1.0, 0), std::invalid_argument);
}

TEST_CASE("a mean's interval") {
  const auto three = mean_interval({1.0, 2.0, 6.0});
  CHECK(three.n == 3);
  CHECK(three.mean == Approx(3.0));
  CHECK(three.half_width == Approx(4.302653 * std::sqrt(7.0 / 3.0)).epsilon(1e-6));
  CHECK(mean_interval({0.25}).mean == 0.25);
  CHECK(mean_interval({0.25}).half_width == 0.0);
  CHECK(mean_interval({}).n == 0);
  CHECK(mean_interval({0.5, 0.5}).half_width == 0.0);
}

}  // namespace hax::test
