// Talk on stderr. Results go to stdout and never through here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hax::log {

enum class Level { quiet, normal, verbose };
void set_level(Level level);

void info(std::string_view message);
void warn(std::string_view message);
void error(std::string_view message);
void debug(std::string_view message);

// A line on stderr that overwrites itself on a terminal, at most ten times a second; elsewhere a plain
// line at most every ten seconds. finish() leaves the last state standing.
class ProgressLine {
 public:
  void update(const std::string& text);
  void finish();

 private:
  double last_ = -1e9;
  std::string shown_;
};

// "3m 20s", "1h 02m"; for ETAs and durations.
std::string format_seconds(double seconds);

}  // namespace hax::log
