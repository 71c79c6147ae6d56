#include "lib/eval/student_t.h"

#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>

namespace hax {
namespace {

// With t = sqrt(freedom) tan(angle).
double central_by_angle(double angle, int64_t freedom) {
  const double c = std::cos(angle), s = std::sin(angle);
  const bool odd = freedom % 2 == 1;
  double term = odd ? c : 1.0, sum = 0.0;
  for (int64_t j = odd ? 3 : 2; j <= freedom; j += 2) {
    sum += term;
    term *= c * c * static_cast<double>(j - 1) / static_cast<double>(j);
  }
  return odd ? 2.0 / std::numbers::pi * (angle + s * sum) : s * sum;
}

void check_freedom(int64_t freedom) {
  if (freedom < 1)
    throw std::invalid_argument("student_t: freedom is " + std::to_string(freedom) + "; wanted >= 1");
}

}  // namespace

double student_t_central(double t, int64_t freedom) {
  check_freedom(freedom);
  return central_by_angle(std::atan(t / std::sqrt(static_cast<double>(freedom))), freedom);
}

double student_t_two_sided(double probability, int64_t freedom) {
  check_freedom(freedom);
  if (!(probability >= 0.0 && probability < 1.0)) {
    throw std::invalid_argument("student_t: probability is " + std::to_string(probability) +
                                "; wanted 0 <= p < 1");
  }
  double low = 0.0, high = std::numbers::pi / 2.0;
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (central_by_angle(middle, freedom) < probability ? low : high) = middle;
  }
  return std::sqrt(static_cast<double>(freedom)) * std::tan(low);
}

MeanInterval mean_interval(const std::vector<double>& values) {
  MeanInterval out;
  out.n = static_cast<int64_t>(values.size());
  if (out.n == 0) return out;
  const auto n = static_cast<double>(out.n);
  for (double value : values) out.mean += value;
  out.mean /= n;
  if (out.n < 2) return out;
  double squares = 0.0;
  for (double value : values) squares += (value - out.mean) * (value - out.mean);
  out.half_width = student_t_two_sided(0.95, out.n - 1) * std::sqrt(squares / (n - 1.0) / n);
  return out;
}

}  // namespace hax
