// spdlog gives levels, time and colour; the progress line shares its stream under one mutex.
#include "lib/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>

namespace hax::log {
namespace {

struct Talk {
  Talk() : logger("hax", std::make_shared<spdlog::sinks::stderr_color_sink_st>()) {
    logger.set_pattern("%H:%M:%S %^%l:%$ %v");
    logger.flush_on(spdlog::level::trace);
  }

  std::mutex mutex;
  spdlog::logger logger;
  bool line_open = false;  // an unfinished progress line stands on the terminal
};

// Never destroyed, so that destructors of other static objects may still log.
Talk& talk() {
  static Talk* const instance = new Talk;
  return *instance;
}

bool on_terminal() {
  const char* const kind = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && kind != nullptr && std::string_view(kind) != "dumb";
}

void clear_line(Talk& talk) {
  if (!talk.line_open) return;
  std::fputs("\r\x1b[K", stderr);
  talk.line_open = false;
}

void say(spdlog::level::level_enum level, std::string_view message) {
  Talk& t = talk();
  const std::lock_guard lock(t.mutex);
  if (!t.logger.should_log(level)) return;
  clear_line(t);
  t.logger.log(level, spdlog::string_view_t(message.data(), message.size()));
}

// As much of the text as fits on one row: a longer line would wrap, and only its last row be overwritten.
std::string_view fitting(std::string_view text) {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 2) return text;
  size_t end = 0;
  int columns = 0;
  while (end < text.size() && columns < size.ws_col - 1) {
    ++columns;
    ++end;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;  // UTF-8
  }
  return text.substr(0, end);
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

void set_level(Level level) {
  Talk& t = talk();
  const std::lock_guard lock(t.mutex);
  t.logger.set_level(level == Level::quiet    ? spdlog::level::warn
                     : level == Level::normal ? spdlog::level::info
                                              : spdlog::level::debug);
}

void info(std::string_view message) { say(spdlog::level::info, message); }
void warn(std::string_view message) { say(spdlog::level::warn, message); }
void error(std::string_view message) { say(spdlog::level::err, message); }
void debug(std::string_view message) { say(spdlog::level::debug, message); }

ProgressLine::~ProgressLine() { finish(); }

void ProgressLine::show() {
  Talk& t = talk();
  const std::lock_guard lock(t.mutex);
  pending_ = false;
  if (!t.logger.should_log(spdlog::level::info)) return;
  if (on_terminal()) {
    const std::string_view text = fitting(latest_);
    std::fprintf(stderr, "\r\x1b[K%.*s", static_cast<int>(text.size()), text.data());
    t.line_open = true;
  } else {
    std::fprintf(stderr, "%s\n", latest_.c_str());
  }
  std::fflush(stderr);
}

void ProgressLine::update(const std::string& text) {
  latest_ = text;
  pending_ = true;
  const double time = now();
  if (time - last_ < (on_terminal() ? 0.1 : 10.0)) return;
  last_ = time;
  show();
}

void ProgressLine::finish() {
  if (pending_) show();
  Talk& t = talk();
  const std::lock_guard lock(t.mutex);
  if (t.line_open) std::fputs("\n", stderr);
  std::fflush(stderr);
  t.line_open = false;
}

std::string format_seconds(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto two = [](long long large, char large_unit, long long small, char small_unit) {
    char text[48];
    std::snprintf(text, sizeof text, "%lld%c %02lld%c", large, large_unit, small, small_unit);
    return std::string(text);
  };
  const long long s = std::llround(std::min(seconds, 1e15));
  if (s < 60) return std::to_string(s) + "s";
  if (s < 3600) return two(s / 60, 'm', s % 60, 's');
  const long long m = std::llround(std::min(seconds, 1e15) / 60);
  if (m < 24LL * 60) return two(m / 60, 'h', m % 60, 'm');
  const long long h = (m + 30) / 60;
  return two(h / 24, 'd', h % 24, 'h');
}

}  // namespace hax::log
