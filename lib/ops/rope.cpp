#include "lib/ops/rope.h"

#include <cmath>
#include <sstream>
#include <stdexcept>

#include "lib/ops/dispatch.h"

namespace hax::ops {
namespace {

void check(const at::Tensor& x, const at::Tensor& position) {
  if (x.dim() == 3 && position.dim() == 1 && x.size(0) == position.size(0) && x.size(2) % 2 == 0) return;
  std::ostringstream message;
  message << "rope: x is " << x.sizes() << " and position " << position.sizes()
          << ", wanted (T, heads, an even head_dim) and (T)";
  throw std::invalid_argument(message.str());
}

// Every pair of every token multiplied with its own rotation matrix.
at::Tensor reference(const at::Tensor& x_in, const at::Tensor& position, double theta) {
  const at::Tensor x = x_in.to(compute_type(x_in));
  const int64_t P = x.size(2), half = P / 2;
  std::vector<at::Tensor> y;
  for (int64_t row = 0; row < x.size(0); ++row) {
    const auto t = position[row].item<double>();
    at::Tensor turn = at::zeros({P, P}, at::TensorOptions().dtype(at::kDouble));
    auto at_place = turn.accessor<double, 2>();
    for (int64_t p = 0; p < half; ++p) {
      const double angle = t * std::pow(theta, -2.0 * static_cast<double>(p) / static_cast<double>(P));
      at_place[p][p] = at_place[p + half][p + half] = std::cos(angle);
      at_place[p][p + half] = -std::sin(angle);
      at_place[p + half][p] = std::sin(angle);
    }
    turn = turn.to(x.device(), x_in.scalar_type()).to(x.scalar_type());
    y.push_back(x[row].mm(turn.t()));  // (H, P)
  }
  return at::stack(y).to(x_in.scalar_type());
}

}  // namespace

at::Tensor rope(const at::Tensor& x, const at::Tensor& position, double theta, Path path) {
  check(x, position);
  if (path == Path::reference) return reference(x, position, theta);
  const int64_t P = x.size(2);
  const auto wide = compute_type(x);
  const at::Tensor exponents = at::arange(0, P, 2, position.options().dtype(at::kDouble)) / -P;
  const at::Tensor angles = at::outer(position.to(at::kDouble), at::pow(theta, exponents));
  const auto table = [&](const at::Tensor& values) {
    return values.unsqueeze(1).to(x.scalar_type()).to(wide);  // (T, 1, P / 2)
  };
  const at::Tensor cos = table(angles.cos()), sin = table(angles.sin());
  const auto halves = x.to(wide).chunk(2, 2);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, 2)
      .to(x.scalar_type());
}

}  // namespace hax::ops
