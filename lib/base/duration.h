// Spans of time as people and batch systems write them.
#pragma once

#include <optional>
#include <string_view>

namespace hax {

// Seconds in "90s", "55m", "2h", "3h55m", "1d12h", "1.5h" (d, h, m, s, each at most once and in this order)
// or "H:MM:SS", "D-HH:MM:SS". Nothing else: a bare "90" or "1:30" would be minutes to some and seconds to
// others. Never negative, infinite or NaN.
std::optional<double> parse_duration(std::string_view text);

}  // namespace hax
