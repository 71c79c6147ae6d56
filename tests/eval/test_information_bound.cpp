// The information bound: its ends, Fano's equality, what a lookup table of b bits reaches, and the task's
// sizes.
#include <cmath>
#include <stdexcept>

#include "lib/eval/information_bound.h"
#include "tests/catch.h"

namespace hax::test {

TEST_CASE("the whole table is right with probability 2^b / V^n at most") {
  CHECK(whole_table_bound(64.0, 16, 16) == 1.0);
  CHECK(whole_table_bound(1e9, 16, 16) == 1.0);
  CHECK(whole_table_bound(63.0, 16, 16) == 0.5);
  CHECK(whole_table_bound(0.0, 2, 4) == 0.0625);
  CHECK(whole_table_bound(0.0, 5, 1) == 1.0);
}

TEST_CASE("entries: chance without a state, everything from n log2 V bits on") {
  for (const int64_t values : {2, 4, 16, 1000}) {
    CAPTURE(values);
    const double full = 7.0 * std::log2(static_cast<double>(values));
    CHECK(entry_bound(0.0, 7, values) == Approx(1.0 / static_cast<double>(values)).epsilon(1e-6));
    CHECK(entry_bound(full, 7, values) == 1.0);
    CHECK(entry_bound(0.999 * full, 7, values) < 1.0);
    double before = 0.0;
    for (double bits = 0.0; bits < full; bits += full / 50.0) {
      const double now = entry_bound(bits, 7, values);
      CHECK(now > before);
      before = now;
    }
  }
  CHECK(entry_bound(0.0, 3, 1) == 1.0);
}

TEST_CASE("the bound meets Fano's inequality with equality") {
  // V = 2: n (1 - H2(p)) = b. At p = 0.89, H2 = 0.499916, so b / n = 0.500084.
  const double h = -(0.89 * std::log2(0.89) + 0.11 * std::log2(0.11));
  CHECK(entry_bound(10.0 * (1.0 - h), 10, 2) == Approx(0.89).epsilon(1e-9));
  // V = 16 at p = 0.5: 4 - 1 - 0.5 log2 15.
  CHECK(entry_bound(100.0 * (3.0 - 0.5 * std::log2(15.0)), 100, 16) == Approx(0.5).epsilon(1e-9));
}

TEST_CASE("remembering some entries and guessing the rest stays below the bound") {
  for (int64_t kept = 0; kept <= 16; ++kept) {
    const double reached = (static_cast<double>(kept) + static_cast<double>(16 - kept) / 16.0) / 16.0;
    CAPTURE(kept);
    CHECK(entry_bound(4.0 * static_cast<double>(kept), 16, 16) >= reached - 1e-9);
  }
}

TEST_CASE("a task's bound is the mean over its sizes") {
  TaskConfig task;
  task.joint_recall = {2, 3, 4, 5, 16, 0};  // 8, 10, 12, 15 entries
  const auto bound = information_bound(task, 40.0);
  const double entry =
      (entry_bound(40, 8, 16) + entry_bound(40, 10, 16) + entry_bound(40, 12, 16) + entry_bound(40, 15, 16)) /
      4.0;
  CHECK(bound.entry == Approx(entry).epsilon(1e-12));
  CHECK(bound.whole_table == Approx((2.0 + std::exp2(-8.0) + std::exp2(-20.0)) / 4.0).epsilon(1e-12));
  task.name = TaskKind::mqar;
  CHECK_THROWS_AS(information_bound(task, 40.0), std::invalid_argument);
  CHECK_THROWS_AS(entry_bound(-1.0, 4, 4), std::invalid_argument);
  CHECK_THROWS_AS(entry_bound(1.0, 0, 4), std::invalid_argument);
}

}  // namespace hax::test
