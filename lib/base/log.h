// Talk on stderr. Results go to stdout and never through here.
#pragma once

#include <string>
#include <string_view>

namespace hax::log {

// What is shown: quiet keeps warnings and errors, verbose adds debug messages. Normal from the start.
enum class Level { quiet, normal, verbose };
void set_level(Level level);

// One line each, "12:34:56 warning: message", the level coloured on a terminal. Safe from any thread.
void info(std::string_view message);
void warn(std::string_view message);
void error(std::string_view message);
void debug(std::string_view message);

// A line on stderr that overwrites itself on a terminal, at most ten times a second; elsewhere a plain
// line at most every ten seconds. Nothing at all when quiet. Messages logged meanwhile take its place,
// and the next update draws it anew. One at a time, from one thread.
class ProgressLine {
 public:
  ProgressLine() = default;
  ~ProgressLine();  // finishes
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void update(const std::string& text);
  void finish();  // leaves the last state standing

 private:
  void show();

  double last_ = -1e9;    // seconds of the steady clock
  std::string latest_;    // the last update, shown or not
  bool pending_ = false;  // latest_ is not shown yet
};

// "42s", "3m 20s", "1h 02m", "2d 03h"; "?" unless finite and not negative. For ETAs and durations.
std::string format_seconds(double seconds);

}  // namespace hax::log
