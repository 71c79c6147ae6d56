// --set key=value, one a line. What is accepted is written and read in fuzz_config.
#include <sstream>
#include <vector>

#include "lib/base/error.h"
#include "lib/config/load.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hax;
  std::vector<std::string> settings;
  std::istringstream lines(fuzz::text_of(data, size));
  for (std::string line; settings.size() < 4 && std::getline(lines, line);) settings.push_back(line);
  try {
    load_config({}, settings);
  } catch (const UsageError& error) {
    fuzz::demand(std::string_view(error.what()).starts_with("--set ") ||
                     std::string_view(error.what()).starts_with("default"),
                 "a refusal begins with the setting");
  }
  return 0;
}
