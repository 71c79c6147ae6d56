#include "lib/train/run_folder.h"

#include <algorithm>
#include <climits>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/json.h"
#include "lib/base/log.h"
#include "lib/config/load.h"
#include "lib/config/lookup.h"
#include "lib/config/write.h"
#include "lib/train/kept_checkpoints.h"

namespace hax {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr uint64_t kMaxResultBytes = 1 << 20;

// What a run may not change between its start and a resume, as lines "key: before -> after". Where the data
// lie may change: their fingerprint is compared.
std::vector<std::string> binding_difference(const Config& was, const Config& is) {
  std::vector<std::string> changes = difference(was, is);
  std::erase_if(changes, [](const std::string& line) {
    return !changes_results(std::string_view(line).substr(0, line.find(':')));
  });
  return changes;
}

[[noreturn]] void refuse_without_config(const std::string& path) {
  if (fs::is_directory(path + "/checkpoints")) {
    throw DataError(
        path +
        ": the run's config.yaml is missing; restore it from a checkpoint (`hax inspect` shows it), "
        "or train into another folder");
  }
  throw DataError(path + ": no run of hax here (no config.yaml); `hax train --out` makes one");
}

}  // namespace

RunFolder RunFolder::create_or_resume(const std::string& path, const Config& config) {
  const std::string config_path = path + "/config.yaml";
  if (fs::exists(config_path)) {
    RunFolder run = open(path);
    const auto changes = binding_difference(run.config_, config);
    const bool begun = run.has_checkpoint() || !kept_checkpoints(run).empty() ||
                       fs::exists(path + "/metrics.jsonl") || fs::exists(path + "/result.json");
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
  // The config comes first: a folder without one was killed before it, and holds left-overs of it at most.
  if (fs::is_directory(path)) remove_stale_temporaries(path);
  if (fs::is_directory(path + "/checkpoints")) refuse_without_config(path);
  if (fs::exists(path) && (!fs::is_directory(path) || !fs::is_empty(path))) {
    throw UsageError(
        path +
        ": exists and is no run folder of hax (no config.yaml in it); give --out a new or empty folder");
  }
  make_directories(path);
  write_file(config_path, to_yaml(config));
  make_directories(path + "/checkpoints");
  return RunFolder(path, config);
}

RunFolder RunFolder::open(const std::string& path) {
  const std::string config_path = path + "/config.yaml";
  if (!fs::exists(config_path)) refuse_without_config(path);
  try {
    const std::string text = read_file(config_path);
    // As YAML it would be sound, and every key its default.
    if (text.find_first_not_of(" \t\r\n") == std::string::npos)
      throw UsageError(config_path + ": is empty; a run's config names every key");
    return RunFolder(path, parse_config(text, config_path));
  } catch (const UsageError& e) {
    throw DataError(
        "the run's own config is damaged; restore it from a checkpoint (`hax inspect` shows it), or train "
        "into "
        "another folder:\n" +
        std::string(e.what()));
  }
}

bool RunFolder::has_checkpoint() const { return fs::exists(last_checkpoint()); }

void RunFolder::check_config(const Config& of_checkpoint, const std::string& checkpoint) const {
  const auto changes = binding_difference(of_checkpoint, config_);
  if (changes.empty()) return;
  std::string text = path_ + "/config.yaml: is not the config that " + checkpoint +
                     " was trained under; restore it (`hax inspect` shows the checkpoint's):";
  for (const auto& change : changes) text += "\n  " + change;
  throw DataError(text);
}

void RunFolder::require_regular_files() const {
  for (const std::string& path :
       {last_checkpoint(), best_checkpoint(), rewind_checkpoint(), path_ + "/metrics.jsonl",
        path_ + "/timing.jsonl", path_ + "/result.json"}) {
    const auto type = fs::symlink_status(path).type();
    if (type != fs::file_type::not_found && type != fs::file_type::regular)
      throw RuntimeError(path + ": is no regular file, and the run writes one there; move it away");
  }
}

std::optional<RunResult> RunFolder::result() const {
  const std::string path = path_ + "/result.json";
  if (!fs::exists(path)) return std::nullopt;
  const char* remedy = "remove it to let the run go on from its last checkpoint";
  const Json document = read_json_file(path, kMaxResultBytes, remedy);
  const JsonReader json(document, damaged_place(path), remedy);
  const double most = std::numeric_limits<double>::max();
  if (json.has("checksum") && json.text("checksum") != document_checksum(document))
    json.fail("checksum", "is not that of the other keys");
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
  Json json = {{"status", r.status},           {"step", r.step},
               {"tokens_seen", r.tokens_seen}, {"best_accuracy", r.best_accuracy},
               {"best_step", r.best_step},     {"seconds", r.seconds},
               {"message", r.message}};
  json["checksum"] = document_checksum(json);
  write_file(path_ + "/result.json", json.dump(2) + "\n");
}

RecordLog RunFolder::metrics() const { return RecordLog(path_ + "/metrics.jsonl"); }
RecordLog RunFolder::timing() const { return RecordLog(path_ + "/timing.jsonl"); }

RunProgress RunFolder::progress() const {
  std::vector<int64_t> damaged;
  const std::vector<Record> records = metrics().records(&damaged);
  if (const std::string damage = lines_text(damaged); !damage.empty())
    log::warn(path_ + "/metrics.jsonl: " + damage + " damaged and left out of what is said of the run");
  RunProgress out;
  for (const Record& record : records) {
    out.step = record.step();
    out.tokens_seen = record.integer_of("tokens_seen", out.tokens_seen);
    if (record.kind() != "valid") continue;
    out.validated_step = out.step;
    const double accuracy = record.number_of("accuracy", -1.0);
    if (accuracy <= out.best_accuracy) continue;
    out.best_accuracy = accuracy;
    out.best_step = out.step;
  }
  return out;
}

bool RunFolder::is_training() const { return FileLock::is_held(path_ + "/lock"); }

FileLock RunFolder::lock() const {
  return {path_ + "/lock", "is training this run; wait for it, or give another --out"};
}

void RunFolder::rewind_metrics(const CheckpointInfo& to) const {
  int64_t reached = 0;  // by the records of training that stay
  metrics().keep_if([&](const Record& record) {
    const int64_t at = record.step();
    const std::string kind = record.kind();
    if (kind == "rewind" && record.integer_of("rewinds", 0) > to.rewinds) return false;
    const bool stays = at < to.step || (at == to.step && (to.valid_accuracy >= 0.0 || kind != "valid"));
    if (stays && kind == "train") reached = at;
    return stays;
  });
  // The run may have been told to log more or less often since.
  const int64_t apart = std::max(to.config.train.log_every, config_.train.log_every);
  if (reached + apart <= to.step) {
    log::warn(path_ + "/metrics.jsonl: the records of steps " + std::to_string(reached + 1) + " to " +
              std::to_string(to.step) + " are missing; the run goes on without them");
  }
}

double RunFolder::seconds_so_far() const {
  std::vector<int64_t> damaged;
  double seconds = 0.0;
  for (const Record& record : timing().records(&damaged)) seconds += record.number_of("seconds", 0.0);
  if (const std::string damage = lines_text(damaged); !damage.empty())
    log::warn(path_ + "/timing.jsonl: " + damage + " damaged and left out of the run's seconds");
  return seconds;
}

}  // namespace hax
