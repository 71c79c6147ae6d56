// Spans of time (--max-time).
#include <cmath>

#include "lib/base/duration.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hax;
  const std::string text = fuzz::text_of(data, size);
  const auto seconds = parse_duration(text);
  if (!seconds) return 0;
  fuzz::demand(std::isfinite(*seconds) && *seconds >= 0.0, "a span of time is a number of seconds");
  fuzz::demand(text.find_first_not_of("0123456789.:-dhms") == text.npos, "nothing else stands in the text");
  if (text.find(':') != text.npos) return 0;
  fuzz::demand(text.find('-') == text.npos, "days stand before hours alone");
  fuzz::demand(!parse_duration(text + text), "a unit is named once");
  return 0;
}
