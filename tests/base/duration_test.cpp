// Spans of time, and what is not one.
#include "lib/base/duration.h"

#include <string>

#include "tests/catch.h"

namespace hax {

TEST_CASE("spans of time are read with their units") {
  struct Case {
    const char* text;
    double seconds;
  };
  for (const Case& c : {Case{"90s", 90},
                        {"55m", 3300},
                        {"2h", 7200},
                        {"3h55m", 14100},
                        {"1d12h", 129600},
                        {"1h30m15s", 5415},
                        {"1.5h", 5400},
                        {"0.25s", 0.25},
                        {"0s", 0},
                        {"1:30:00", 5400},
                        {"100:00:01", 360001},
                        {"0:00:59", 59},
                        {"2-03:04:05", 183845},
                        {"1d1s", 86401}}) {
    CAPTURE(c.text);
    REQUIRE(parse_duration(c.text));
    CHECK(*parse_duration(c.text) == Approx(c.seconds).epsilon(1e-15));
  }
}

TEST_CASE("what could be two spans of time, or none, is refused") {
  for (const char* text :
       {"",      "90",       "1:30",      "1:2:3",    "1:60:00",     "1:00:60", "-5s",  "5 s",
        "5m3h",  "5m5m",     "h",         "1h5",      "1e3s",        "nan",     "infs", ".5h",
        "1..5h", "1:30:00s", "1.5:00:00", "-1:00:00", "1-1-1:00:00", "5H",      "+5s"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_duration(text));
  }
  const std::string digits(308, '9');
  CHECK(parse_duration(digits + "s"));
  for (const auto& text : {digits + "d", digits + "-0:00:00", digits + "9s"})
    CHECK_FALSE(parse_duration(text));
}

}  // namespace hax
