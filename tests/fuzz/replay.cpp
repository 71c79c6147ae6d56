// The fuzz targets without a fuzzer: runs every file of the given folders, in the order of their names.
// A folder without files is a mistake in the call, not a success.
#include <algorithm>
#include <filesystem>
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "tests/support.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      if (entry.is_regular_file()) paths.push_back(entry.path().string());
    }
    if (paths.empty()) {
      std::fprintf(stderr, "%s: no files\n", argv[i]);
      return 1;
    }
    std::sort(paths.begin(), paths.end());
    for (const std::string& path : paths) {
      const std::string bytes = hax::test::slurp(path);
      std::fprintf(stderr, "%s\n", path.c_str());  // the last one named is the one that crashed
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    }
  }
  return argc > 1 ? 0 : 1;
}
