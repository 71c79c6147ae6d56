#include "lib/train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/json.h"
#include "lib/config/load.h"
#include "lib/config/lookup.h"
#include "lib/config/write.h"

namespace hax {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kLockAttempts = 10;
constexpr uint64_t kMaxResultBytes = 1 << 20;

void append_line(const std::string& path, const std::string& line) {
  std::ofstream file(path, std::ios::app | std::ios::binary);
  file << line << '\n';
  file.flush();
  if (!file) throw RuntimeError(path + ": cannot write: " + std::strerror(errno));
}

// What a run may not change between its start and a resume, as lines "key: before -> after". Where the data
// lie may change: their fingerprint is compared.
std::vector<std::string> binding_difference(const Config& was, const Config& is) {
  std::vector<std::string> changes = difference(was, is);
  std::erase_if(changes, [](const std::string& line) {
    return !changes_results(std::string_view(line).substr(0, line.find(':')));
  });
  return changes;
}

// Calls use(record, line) on each whole line that is a JSON object; a torn last line, which a killed process
// leaves, is passed over.
template <class Use>
void for_each_record(const std::string& path, Use use) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  while (std::getline(file, line)) {
    const Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (record.is_object() && record.contains("step")) use(record, line);
  }
}

}  // namespace

RunFolder RunFolder::create_or_resume(const std::string& path, const Config& config) {
  const std::string config_path = path + "/config.yaml";
  if (fs::exists(config_path)) {
    RunFolder run = open(path);
    const auto changes = binding_difference(run.config_, config);
    const bool begun =
        run.has_checkpoint() || fs::exists(path + "/metrics.jsonl") || fs::exists(path + "/result.json");
    if (!changes.empty() && begun) {
      std::string text =
          path + ": holds a run of another config; give another --out, or resume it unchanged:";
      for (const auto& change : changes) text += "\n  " + change;
      throw UsageError(text);
    }
    make_directories(path + "/checkpoints");
    remove_stale_temporaries(path);
    remove_stale_temporaries(path + "/checkpoints");
    if (!changes.empty()) write_file(config_path, to_yaml(config));
    return RunFolder(path, config);
  }
  if (fs::exists(path) && (!fs::is_directory(path) || !fs::is_empty(path))) {
    throw UsageError(
        path +
        ": exists and is no run folder of hax (no config.yaml in it); give --out a new or empty folder");
  }
  make_directories(path + "/checkpoints");
  write_file(config_path, to_yaml(config));
  return RunFolder(path, config);
}

RunFolder RunFolder::open(const std::string& path) {
  const std::string config_path = path + "/config.yaml";
  if (!fs::exists(config_path)) {
    throw DataError(path + ": no run of hax here (no config.yaml); `hax train --out` makes one");
  }
  try {
    return RunFolder(path, parse_config(read_file(config_path), config_path));
  } catch (const UsageError& e) {
    throw DataError(
        "the run's own config is damaged; restore it from a checkpoint (`hax inspect` shows it), or train "
        "into "
        "another folder:\n" +
        std::string(e.what()));
  }
}

bool RunFolder::has_checkpoint() const { return fs::exists(last_checkpoint()); }

std::optional<RunResult> RunFolder::result() const {
  const std::string path = path_ + "/result.json";
  if (!fs::exists(path)) return std::nullopt;
  const char* remedy = "remove it to let the run go on from its last checkpoint";
  Json document;
  try {
    document = parse_json(read_file(path, kMaxResultBytes));
  } catch (const DataError& e) {
    throw DataError(path + ": damaged: " + e.what() + "; " + remedy);
  }
  const JsonReader json(document, path + ": damaged", remedy);
  const double most = std::numeric_limits<double>::max();
  RunResult result;
  result.status = json.text("status");
  result.step = json.integer("step", 0, INT64_MAX);
  result.tokens_seen = json.integer("tokens_seen", 0, INT64_MAX);
  result.best_accuracy = json.number("best_accuracy", -1.0, 1.0);
  result.best_step = json.integer("best_step", 0, INT64_MAX);
  result.seconds = json.number("seconds", 0.0, most);
  result.message = json.text("message");
  return result;
}

void RunFolder::write_result(const RunResult& r) const {
  const Json json = {{"status", r.status},           {"step", r.step},
                     {"tokens_seen", r.tokens_seen}, {"best_accuracy", r.best_accuracy},
                     {"best_step", r.best_step},     {"seconds", r.seconds},
                     {"message", r.message}};
  write_file(path_ + "/result.json", json.dump(2) + "\n");
}

void RunFolder::append_metrics(const std::string& json) const { append_line(path_ + "/metrics.jsonl", json); }
void RunFolder::append_timing(const std::string& json) const { append_line(path_ + "/timing.jsonl", json); }

RunProgress RunFolder::progress() const {
  RunProgress out;
  for_each_record(path_ + "/metrics.jsonl", [&](const Json& record, const std::string&) {
    out.step = record["step"];
    out.tokens_seen = record.value("tokens_seen", out.tokens_seen);
    const double accuracy = record.value("kind", "") == "valid" ? record.value("accuracy", -1.0) : -1.0;
    if (accuracy <= out.best_accuracy) return;
    out.best_accuracy = accuracy;
    out.best_step = out.step;
  });
  return out;
}

bool RunFolder::is_training() const {
  const int fd = ::open((path_ + "/lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool held = ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(fd);
  return held;
}

std::shared_ptr<const void> RunFolder::lock() const {
  const std::string path = path_ + "/lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) throw RuntimeError("cannot create " + path + ": " + std::strerror(errno));
  std::shared_ptr<const void> held(nullptr, [fd](const void*) { ::close(fd); });
  // is_training() of another process holds it for a moment. Where the file system has no locks, there is
  // nothing to hold.
  for (int attempt = 1; ::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK; ++attempt) {
    if (attempt == kLockAttempts) {
      throw UsageError(path_ + ": another process is training this run; wait for it, or give another --out");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return held;
}

void RunFolder::rewind_metrics(int64_t step, bool validated) const {
  const std::string path = path_ + "/metrics.jsonl";
  if (!fs::exists(path)) return;
  std::string kept;
  for_each_record(path, [&](const Json& record, const std::string& line) {
    const int64_t at = record["step"];
    const bool keep = at < step || (at == step && (validated || record.value("kind", "") != "valid"));
    if (keep) kept += line + "\n";
  });
  write_file(path, kept);
}

double RunFolder::seconds_so_far() const {
  double seconds = 0.0;
  const std::string path = path_ + "/timing.jsonl";
  if (!fs::exists(path)) return seconds;
  for_each_record(path,
                  [&](const Json& record, const std::string&) { seconds += record.value("seconds", 0.0); });
  return seconds;
}

}  // namespace hax
