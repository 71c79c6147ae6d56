#include "data_gen/output_folder.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "lib/base/error.h"
#include "lib/base/files.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMarker = "generation_in_progress";
constexpr int kAttempts = 20;
constexpr int kLooks = 3;

std::string marker(const std::string& folder) { return (fs::path(folder) / kMarker).string(); }

bool is_split(const std::string& name) {
  return std::any_of(kSplits.begin(), kSplits.end(),
                     [&](Split split) { return name == fs::path(split_path("", split)).filename(); });
}

// The first name in the folder that satisfies `condition`; empty where none does.
template <class F>
std::string first_name(const std::string& folder, const F& condition) {
  std::string first;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name != kMarker && condition(name) && (first.empty() || name < first)) first = name;
  }
  return first;
}

// What no generation wrote.
std::string foreign_name(const std::string& folder) {
  return first_name(folder, [](const std::string& name) { return !is_split(name); });
}

[[noreturn]] void refuse_dataset(const std::string& path) {
  throw UsageError("--out " + path +
                   ": already holds a dataset (manifest.json); name another folder, or remove it");
}

[[noreturn]] void refuse_name(const std::string& path, const std::string& name) {
  throw UsageError("--out " + path + ": is not empty (" + name +
                   ") and holds no interrupted generation; name a new or empty folder");
}

// Looks without writing, not even for a moment: the folder may be in other use. Whether a marker stands in
// it; throws UsageError where it is none to write into.
bool may_be_taken(const std::string& path) {
  for (int look = 1;; ++look) {
    // In this order: where the files are a generation's, its marker goes only once there is a manifest.
    const std::string name = first_name(path, [](const std::string&) { return true; });
    const bool marked = fs::exists(marker(path));
    if (fs::exists(manifest_path(path))) refuse_dataset(path);
    if (marked || name.empty()) return marked;
    // Or the generation was stopped since the first glance, and its files are gone too.
    if (look == kLooks) refuse_name(path, name);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace

OutputFolder::OutputFolder(const std::string& path) : path_(path) {
  if (path.empty()) throw UsageError("--out: an output folder must be named");
  for (int attempt = 1;; ++attempt) {
    try {
      take();
      return;
    } catch (const std::exception& e) {
      lock_.reset();
      std::error_code ignored;
      if (made_) fs::remove(path, ignored);  // it stays where it holds anything
      // Another process may have removed the folder, stopped or refused itself, between two of our calls.
      const bool refused = dynamic_cast<const UsageError*>(&e) != nullptr;
      if (refused || attempt == kAttempts) throw;
    }
  }
}

void OutputFolder::take() {
  const fs::file_status found = fs::status(path_);
  made_ = !fs::exists(found);
  if (made_) {
    make_directories(path_);
  } else if (!fs::is_directory(found)) {
    throw UsageError("--out " + path_ + ": is a file; name a new or empty folder");
  }
  const bool marked = may_be_taken(path_);
  lock_ = std::make_unique<FileLock>(
      marker(path_), "is generating a dataset into this folder; wait for it, or name another --out");

  // Only now is the folder still: an owner of the lock may have ended, in any way, since the look above.
  const bool interrupted = marked || lock_->was_left();
  const bool whole = fs::exists(manifest_path(path_));
  if (whole || !interrupted) lock_->remove_at_end();
  if (whole) refuse_dataset(path_);
  remove_stale_temporaries(path_);
  if (const std::string foreign = foreign_name(path_); !foreign.empty()) refuse_name(path_, foreign);
  std::error_code ignored;
  for (Split split : kSplits) {
    const std::string left = split_path(path_, split);
    if (!interrupted && fs::exists(left)) refuse_name(path_, fs::path(left).filename().string());
    fs::remove(left, ignored);
  }
  lock_->remove_at_end();
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  const bool own = lock_->in_place();
  if (!published_ && own) {
    // The manifest, written last, goes first: without it nothing looks whole.
    std::for_each(written_.rbegin(), written_.rend(),
                  [&](const std::string& file) { fs::remove(file, ignored); });
  }
  lock_.reset();  // and with it the marker
  if (!published_ && own && made_) fs::remove(path_, ignored);
}

void OutputFolder::require_own() const {
  if (lock_->in_place()) return;
  throw RuntimeError("--out " + path_ + ": the folder, or " + kMarker +
                     " in it, was removed or replaced during the generation; no dataset was written");
}

SplitEntry OutputFolder::write(const SplitColumns& columns, Split split) {
  require_own();
  written_.push_back(split_path(path_, split));
  return columns.write(path_, split);
}

void OutputFolder::publish(const Manifest& manifest) {
  require_own();
  written_.push_back(manifest_path(path_));
  write_manifest(path_, manifest);
  published_ = true;
}

}  // namespace hax
