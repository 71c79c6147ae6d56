#pragma once

#include <string>

namespace hax {

// Version, commit, LibTorch, CUDA and devices; as text or JSON, ending with a newline.
std::string version_report(bool json);

}  // namespace hax
