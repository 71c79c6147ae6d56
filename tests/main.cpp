// Runs a folder's tests. A run that asks for [gpu] cases ends with status 77, which CTest shows as
// skipped, where there is no CUDA device; it never passes for lack of one.
#if HAX_CATCH_MAJOR >= 3
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

#include <cstdio>
#include <string>

#include "tests/has_gpu.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "[gpu]" && !hax::test::has_gpu()) {
      std::puts("skipped: these tests need a CUDA device and there is none");
      return 77;
    }
  }
  return Catch::Session().run(argc, argv);
}
