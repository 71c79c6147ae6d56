// The golden folder: HAX_GOLDENS, or the one in the source tree.
#pragma once

#include <cstdlib>
#include <string>

namespace hax::test {

inline std::string golden_path(const std::string& name) {
  const char* folder = std::getenv("HAX_GOLDENS");
  return (folder != nullptr ? std::string(folder) : std::string(HAX_SOURCE_DIR) + "/tests/golden") + "/" +
         name;
}

}  // namespace hax::test
