// Which size each example of a mix has: a fixed periodic sequence in which, of the first n examples for every
// n, each size's count differs from n * weight / total by less than one.
//
// The sequence is R. Tijdeman's solution of the chairman assignment problem (Discrete Mathematics 32, 1980).
// Its period is the sum of the weights over their greatest common divisor; equal weights take turns in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hax {

class SizeSchedule {
 public:
  // Positive weights. Throws std::invalid_argument when there is none, or one is not positive.
  explicit SizeSchedule(std::vector<int64_t> weights);

  int64_t at(int64_t index) const { return sequence_[static_cast<size_t>(index % period())]; }
  int64_t count(int64_t size, int64_t n) const;  // examples of this size among the first n
  int64_t period() const { return static_cast<int64_t>(sequence_.size()); }

 private:
  std::vector<int64_t> weights_;   // over their greatest common divisor
  std::vector<int16_t> sequence_;  // (period)
};

}  // namespace hax
