// A config file: YAML, fields, impossible combinations. What is accepted survives being written out.
#include "lib/base/error.h"
#include "lib/config/load.h"
#include "lib/config/write.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hax;
  Config config;
  try {
    config = parse_config(fuzz::text_of(data, size), "fuzz.yaml");
  } catch (const UsageError& error) {
    fuzz::demand(std::string_view(error.what()).starts_with("fuzz.yaml") ||
                     std::string_view(error.what()).starts_with("default"),
                 "a refusal begins with the place");
    return 0;
  }
  const std::string yaml = to_yaml(config);
  const Config again = parse_config(yaml, "again.yaml");
  fuzz::demand(to_yaml(again) == yaml, "a config survives being written and read");
  return 0;
}
