// What every norm of a model adds to the mean of squares (spec section 2).
#pragma once

namespace hax {

inline constexpr double kNormEps = 1e-5;

}  // namespace hax
