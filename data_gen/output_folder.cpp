#include "data_gen/output_folder.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/data/manifest.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMarker = "generation_in_progress";

fs::path marker(const std::string& folder) { return fs::path(folder) / kMarker; }

void remove_partial(const std::string& folder) {
  std::error_code ignored;
  for (Split split : kSplits) fs::remove(split_path(folder, split), ignored);
  fs::remove(marker(folder), ignored);
}

std::vector<std::string> foreign_names(const std::string& folder) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name == kMarker || std::any_of(kSplits.begin(), kSplits.end(), [&](Split split) {
                        return name == fs::path(split_path(folder, split)).filename().string();
                      });
    if (!ours) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

OutputFolder::OutputFolder(const std::string& path) : path_(path) {
  if (path.empty()) throw UsageError("--out: an output folder must be named");
  if (fs::exists(path) && !fs::is_directory(path)) {
    throw UsageError("--out " + path + ": is a file; name a new or empty folder");
  }
  if (!fs::exists(path)) {
    make_directories(path);
    made_ = true;
  } else if (fs::exists(manifest_path(path))) {
    throw UsageError("--out " + path +
                     ": already holds a dataset (manifest.json); name another folder, or remove it");
  } else if (!fs::is_empty(path)) {
    const bool interrupted = fs::exists(marker(path));
    if (interrupted) remove_stale_temporaries(path);
    const std::vector<std::string> foreign = foreign_names(path);
    if (!interrupted || !foreign.empty()) {
      const std::string name =
          foreign.empty() ? fs::directory_iterator(path)->path().filename().string() : foreign[0];
      throw UsageError("--out " + path + ": is not empty (" + name +
                       ") and holds no interrupted generation; name a new or empty folder");
    }
    remove_partial(path);
  }
  write_file(marker(path).string(),
             "A dataset is being generated here. Without manifest.json it is not whole.\n");
}

OutputFolder::~OutputFolder() {
  if (published_) return;
  remove_partial(path_);
  std::error_code ignored;
  fs::remove(manifest_path(path_), ignored);
  if (made_) fs::remove(path_, ignored);
}

void OutputFolder::publish() {
  std::error_code ignored;
  fs::remove(marker(path_), ignored);
  published_ = true;
}

}  // namespace hax
