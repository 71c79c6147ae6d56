// What the built program's ELF file says of its defences, read with readelf.

#include "tests/catch.h"
#include "tests/e2e/program.h"

namespace hax::test {
namespace {

// Output of readelf on the program; nothing where there is no readelf.
std::string readelf(const std::string& options) {
  const TemporaryFolder folder;
  const std::string out = folder.file("out");
  const std::string command =
      "readelf -W " + options + " " + shell_quoted(HAX_BINARY) + " >" + shell_quoted(out) + " 2>/dev/null";
  return std::system(command.c_str()) == 0 ? slurp(out) : "";
}

}  // namespace

TEST_CASE("the program is position-independent, its tables read-only, its stack not executable", "[e2e]") {
  const std::string header = readelf("-h");
  if (header.empty()) {
    WARN("there is no readelf here, so nothing is known of the program's hardening");
    return;
  }
  CHECK(contains(header, "DYN"));
  const std::string dynamic = readelf("-d");
  CHECK(contains(dynamic, "BIND_NOW"));
  CHECK(contains(dynamic, "PIE"));
  const std::string segments = readelf("-l");
  CHECK(contains(segments, "GNU_RELRO"));
  CHECK_FALSE(contains(segments, "RWE"));
  CHECK(contains(segments, "GNU_STACK"));
  // Of checked library calls and of functions that look after their frame.
  const std::string symbols = readelf("--dyn-syms");
  CHECK(contains(symbols, "_chk@GLIBC"));
  CHECK(contains(symbols, "__stack_chk_fail"));
}

// This file is compiled as the program's are.
TEST_CASE("sources are compiled with the compiler's defences", "[e2e]") {
#ifdef NDEBUG
  std::string missing;
#if !defined(_FORTIFY_SOURCE) || _FORTIFY_SOURCE < 2
  missing += "_FORTIFY_SOURCE ";
#endif
#ifndef __SSP_STRONG__
  missing += "-fstack-protector-strong ";
#endif
#ifndef __PIE__
  missing += "-fPIE ";
#endif
#if defined(__x86_64__) && !defined(__CET__)
  missing += "-fcf-protection ";
#endif
  CHECK(missing == "");
#endif
}

}  // namespace hax::test
