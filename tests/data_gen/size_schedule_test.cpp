#include "data_gen/size_schedule.h"

#include <cmath>
#include <numeric>
#include <stdexcept>

#include "tests/catch.h"

using hax::SizeSchedule;

TEST_CASE("a schedule's counts stay within one of their shares, at every length") {
  for (const std::vector<int64_t>& weights :
       std::vector<std::vector<int64_t>>{{1},
                                         {7},
                                         {1, 1},
                                         {5, 1, 1, 1, 1},
                                         {100000, 20000, 20000, 20000, 20000},
                                         {1, 2, 3, 4, 5, 6, 7},
                                         {997, 1, 1},
                                         {3, 5, 1009, 20},
                                         {1, 1, 1, 1, 1, 1, 1, 1, 1000}}) {
    const SizeSchedule schedule(weights);
    const auto total = static_cast<double>(std::accumulate(weights.begin(), weights.end(), int64_t{0}));
    std::vector<int64_t> counts(weights.size());
    for (int64_t n = 0; n < 2 * schedule.period() + 3; ++n) {
      for (size_t size = 0; size < weights.size(); ++size) {
        const double share = static_cast<double>(n) * static_cast<double>(weights[size]) / total;
        INFO("size " << size << " of " << weights.size() << ", n " << n);
        REQUIRE(std::abs(static_cast<double>(counts[size]) - share) < 1.0);
        if (n < 50) REQUIRE(schedule.count(static_cast<int64_t>(size), n) == counts[size]);
      }
      ++counts[static_cast<size_t>(schedule.at(n))];
    }
    const int64_t last = 2 * schedule.period() + 3;
    for (size_t size = 0; size < weights.size(); ++size) {
      CHECK(schedule.count(static_cast<int64_t>(size), last) == counts[size]);
    }
  }
}

TEST_CASE("a schedule's period is the weights' sum over their common divisor; equal weights take turns") {
  CHECK(SizeSchedule({100000, 20000, 20000, 20000, 20000}).period() == 9);
  const SizeSchedule turns({4, 4, 4});
  CHECK(turns.period() == 3);
  for (int64_t i = 0; i < 9; ++i) CHECK(turns.at(i) == i % 3);
  CHECK_THROWS_AS(SizeSchedule({}), std::invalid_argument);
  CHECK_THROWS_AS(SizeSchedule({1, 0}), std::invalid_argument);
}
