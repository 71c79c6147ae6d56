#include "lib/base/parallel.h"

#include <sched.h>

#include <atomic>
#include <climits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tests/catch.h"

namespace hax {
namespace {

TEST_CASE("parallel_for covers [0, n) once, in ranges of at least grain") {
  for (const int64_t n : {0, 1, 2, 7, 64, 1000, 1001}) {
    for (const int64_t grain : {1, 3, 64, 5000}) {
      for (const int threads : {1, 2, 3, 16}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        std::atomic<int64_t> shortest{INT64_MAX};
        parallel_for(n, grain, threads, [&](int64_t begin, int64_t end) {
          int64_t known = shortest;
          while (end - begin < known && !shortest.compare_exchange_weak(known, end - begin)) {
          }
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        CAPTURE(n, grain, threads);
        for (const auto& visit : visits) REQUIRE(visit == 1);
        if (n > 0) CHECK(shortest >= std::min(n, grain));
      }
    }
  }
}

TEST_CASE("parallel_for keeps to its number of threads and uses them") {
  std::atomic<int> running{0};
  std::atomic<int> most{0};
  parallel_for(64, 1, 3, [&](int64_t, int64_t) {
    const int now = ++running;
    int known = most;
    while (now > known && !most.compare_exchange_weak(known, now)) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    --running;
  });
  CHECK(most == 3);
}

TEST_CASE("one thread stays on the caller's") {
  const std::thread::id here = std::this_thread::get_id();
  std::vector<std::thread::id> seen;
  parallel_for(100, 1, 1, [&](int64_t, int64_t) { seen.push_back(std::this_thread::get_id()); });
  CHECK(seen == std::vector{here});
}

TEST_CASE("the first exception comes back after all threads have ended") {
  for (const int threads : {1, 4}) {
    std::atomic<int> running{0};
    std::atomic<int> begun{0};
    const auto body = [&](int64_t begin, int64_t) {
      ++begun;
      ++running;
      if (begin == 0) {
        --running;
        throw std::out_of_range("range 0");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      --running;
    };
    CHECK_THROWS_AS(parallel_for(1000, 1, threads, body), std::out_of_range);
    CHECK(running == 0);
    CHECK(begun <= threads);
  }
}

TEST_CASE("parallel_for refuses senseless arguments") {
  const auto body = [](int64_t, int64_t) {};
  CHECK_THROWS_AS(parallel_for(-1, 1, 1, body), std::invalid_argument);
  CHECK_THROWS_AS(parallel_for(1, 0, 1, body), std::invalid_argument);
  CHECK_THROWS_AS(parallel_for(1, 1, 0, body), std::invalid_argument);
}

TEST_CASE("hardware_threads honours the affinity mask") {
  cpu_set_t before;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  CHECK(hardware_threads() >= 1);
  CHECK(hardware_threads() <= CPU_COUNT(&before));
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  const int threads = hardware_threads();
  sched_setaffinity(0, sizeof before, &before);
  CHECK(threads == 1);
}

TEST_CASE("a cgroup's quota is rounded up to whole processors") {
  CHECK(cpus_of_cpu_max("max 100000") == INT_MAX);
  CHECK(cpus_of_cpu_max("200000 100000") == 2);
  CHECK(cpus_of_cpu_max("150000 100000") == 2);
  CHECK(cpus_of_cpu_max("1000 100000") == 1);
  CHECK(cpus_of_cpu_max("") == INT_MAX);
  CHECK(cpus_of_cpu_max("100000") == INT_MAX);
  CHECK(cpus_of_cpu_max("100000 0") == INT_MAX);
}

}  // namespace
}  // namespace hax
