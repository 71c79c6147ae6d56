// What stands on stderr, caught by a file or by a terminal of the test's own in its place.
#include "lib/base/log.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cmath>
#include <regex>
#include <thread>

#include "tests/catch.h"
#include "tests/stderr.h"
#include "tests/support.h"

namespace hax {
namespace {

using test::contains;
using test::InPlaceOfStderr;
using test::stderr_of;

template <class F>
std::string on_terminal(unsigned short columns, F&& talk) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(master >= 0);
  REQUIRE(grantpt(master) == 0);
  REQUIRE(unlockpt(master) == 0);
  const int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  REQUIRE(slave >= 0);
  termios mode{};
  tcgetattr(slave, &mode);
  cfmakeraw(&mode);
  tcsetattr(slave, TCSANOW, &mode);
  winsize size{};
  size.ws_col = columns;
  ioctl(slave, TIOCSWINSZ, &size);
  const char* const kind = getenv("TERM");
  const std::string before = kind != nullptr ? kind : "";
  setenv("TERM", "xterm", 1);
  {
    const InPlaceOfStderr redirected(slave);
    talk();
  }
  kind != nullptr ? setenv("TERM", before.c_str(), 1) : unsetenv("TERM");
  fcntl(master, F_SETFL, O_NONBLOCK);
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = read(master, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(got));
  close(slave);
  close(master);
  return text;
}

void say_all() {
  log::debug("fine detail");
  log::info("plain {} fact");
  log::warn("odd thing");
  log::error("bad thing");
}

TEST_CASE("levels choose what is said, and braces stay braces") {
  const std::string normal = stderr_of(say_all);
  CHECK(std::regex_match(normal, std::regex("\\d\\d:\\d\\d:\\d\\d info: plain \\{\\} fact\n"
                                            "\\d\\d:\\d\\d:\\d\\d warning: odd thing\n"
                                            "\\d\\d:\\d\\d:\\d\\d error: bad thing\n")));
  log::set_level(log::Level::verbose);
  const std::string verbose = stderr_of(say_all);
  log::set_level(log::Level::quiet);
  const std::string quiet = stderr_of(say_all);
  log::set_level(log::Level::normal);
  CHECK(contains(verbose, "debug: fine detail\n"));
  CHECK(contains(verbose, "info: plain {} fact\n"));
  CHECK_FALSE(contains(quiet, "plain"));
  CHECK(contains(quiet, "warning: odd thing\n"));
  CHECK(contains(quiet, "error: bad thing\n"));
}

TEST_CASE("elsewhere progress is plain lines, the first and the last of a short time") {
  CHECK(stderr_of([] {
          log::ProgressLine line;
          line.update("1 of 3");
          line.update("2 of 3");
          line.update("3 of 3");
          line.finish();
          line.finish();
        }) == "1 of 3\n3 of 3\n");
  CHECK(stderr_of([] {
          log::ProgressLine line;
          line.update("once");
        }) == "once\n");
  CHECK(stderr_of([] { log::ProgressLine().finish(); }).empty());
  log::set_level(log::Level::quiet);
  const std::string quiet = stderr_of([] { log::ProgressLine().update("hidden"); });
  log::set_level(log::Level::normal);
  CHECK(quiet.empty());
}

TEST_CASE("on a terminal progress overwrites itself") {
  const std::string text = on_terminal(80, [] {
    log::ProgressLine line;
    line.update("1 of 4");
    line.update("2 of 4");  // too soon
    std::this_thread::sleep_for(std::chrono::milliseconds(120));
    line.update("3 of 4");
    line.update("4 of 4");
    line.finish();
  });
  CHECK(text == "\r\x1b[K1 of 4\r\x1b[K3 of 4\r\x1b[K4 of 4\n");
}

TEST_CASE("a message takes the place of the progress line") {
  const std::string text = on_terminal(80, [] {
    log::ProgressLine line;
    line.update("half way");
    log::warn("odd thing");
    line.finish();
  });
  CHECK(std::regex_search(text,
                          std::regex("half way\r\x1b\\[K\\d\\d:\\d\\d:\\d\\d .*warning:.* odd thing\n$")));
}

TEST_CASE("a line longer than the terminal is cut between characters") {
  const std::string text =
      on_terminal(6, [] { log::ProgressLine().update("\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"); });
  CHECK(text == "\r\x1b[K\u00e9\u00e9\u00e9\u00e9\u00e9\n");
}

TEST_CASE("durations read as people say them") {
  CHECK(log::format_seconds(0) == "0s");
  CHECK(log::format_seconds(42.4) == "42s");
  CHECK(log::format_seconds(59.6) == "1m 00s");
  CHECK(log::format_seconds(200) == "3m 20s");
  CHECK(log::format_seconds(3599.6) == "1h 00m");
  CHECK(log::format_seconds(3720) == "1h 02m");
  CHECK(log::format_seconds(86399) == "1d 00h");
  CHECK(log::format_seconds(2 * 86400 + 3 * 3600 + 5) == "2d 03h");
  CHECK(log::format_seconds(-1) == "?");
  CHECK(log::format_seconds(std::nan("")) == "?");
  CHECK(log::format_seconds(INFINITY) == "?");
}

}  // namespace
}  // namespace hax
