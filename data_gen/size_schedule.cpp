#include "data_gen/size_schedule.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace hax {

SizeSchedule::SizeSchedule(std::vector<int64_t> weights) : weights_(std::move(weights)) {
  int64_t divisor = 0;
  for (int64_t weight : weights_) {
    if (weight <= 0) throw std::invalid_argument("SizeSchedule: weight " + std::to_string(weight));
    divisor = std::gcd(divisor, weight);
  }
  const auto sizes = static_cast<int64_t>(weights_.size());
  if (sizes == 0 || sizes > INT16_MAX) {
    throw std::invalid_argument("SizeSchedule: " + std::to_string(sizes) + " weights");
  }
  for (int64_t& weight : weights_) weight /= divisor;
  const int64_t total = std::accumulate(weights_.begin(), weights_.end(), int64_t{0});

  // Of the sizes that may have their next example now without running ahead of 1 - 1/(2 sizes - 2), the one
  // whose example is due first. Everything is multiplied out to integers.
  const int64_t scale = std::max<int64_t>(1, 2 * sizes - 2);
  std::vector<int64_t> given(weights_.size());
  sequence_.reserve(static_cast<size_t>(total));
  for (int64_t t = 1; t <= total; ++t) {
    int64_t chosen = -1;
    for (int64_t i = 0; i < sizes; ++i) {
      const auto s = static_cast<size_t>(i);
      if ((weights_[s] * t - given[s] * total) * scale < total) continue;
      const auto due = [&](size_t j) { return (given[j] + 1) * scale - 1; };  // over weight: in units of t
      if (chosen < 0 ||
          due(s) * weights_[static_cast<size_t>(chosen)] < due(static_cast<size_t>(chosen)) * weights_[s]) {
        chosen = i;
      }
    }
    if (sizes == 1) chosen = 0;
    ++given[static_cast<size_t>(chosen)];
    sequence_.push_back(static_cast<int16_t>(chosen));
  }
}

int64_t SizeSchedule::count(int64_t size, int64_t n) const {
  const auto rest = sequence_.begin() + n % period();
  return n / period() * weights_.at(static_cast<size_t>(size)) +
         std::count(sequence_.begin(), rest, static_cast<int16_t>(size));
}

}  // namespace hax
