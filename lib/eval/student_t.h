// Student's t distribution: the interval of a mean over a few seeds.
#pragma once

#include <cstdint>
#include <vector>

namespace hax {

// P(|T| <= t) for `freedom` >= 1 degrees of freedom and t >= 0: the finite sums of Abramowitz & Stegun
// 26.7.3 and 26.7.4.
double student_t_central(double t, int64_t freedom);

// The t with P(|T| <= t) = probability, 0 <= probability < 1. Throws std::invalid_argument outside.
double student_t_two_sided(double probability, int64_t freedom);

struct MeanInterval {
  int64_t n = 0;
  double mean = 0.0;        // 0 where n = 0
  double half_width = 0.0;  // of the 95 % interval of the mean; 0 where n < 2
};
// Values taken as independent draws of one normal distribution.
MeanInterval mean_interval(const std::vector<double>& values);

}  // namespace hax
