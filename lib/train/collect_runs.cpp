#include "lib/train/collect_runs.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "lib/base/error.h"
#include "lib/base/file_fault.h"
#include "lib/base/log.h"
#include "lib/train/run_folder.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

// Also one whose checkpoints were deleted: its result is still there.
bool is_run(const fs::path& folder) {
  return fs::exists(folder / "config.yaml") &&
         (fs::exists(folder / "result.json") || fs::is_directory(folder / "checkpoints"));
}

void search(const fs::path& folder, std::vector<std::string>& found, std::vector<std::string>& passed_over) {
  if (is_run(folder)) {
    found.push_back(folder.string());
    return;
  }
  std::vector<fs::path> below;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory() && !entry.is_symlink()) below.push_back(entry.path());
  }
  std::sort(below.begin(), below.end());
  for (const auto& path : below) {
    try {
      search(path, found, passed_over);
    } catch (const fs::filesystem_error& e) {
      log::warn(fault_text(e) + "; it is passed over");
      passed_over.push_back(path.string());
    }
  }
}

RunStatus status_of(const RunFolder& run, const std::string& written) {
  if (written == "finished") return RunStatus::finished;
  if (written == "target_reached") return RunStatus::target_reached;
  if (written == "diverged") return RunStatus::diverged;
  if (!written.empty()) {
    throw DataError(run.path() + "/result.json: unknown status '" + written +
                    "'; remove it to let the run go on from its last checkpoint");
  }
  if (run.is_training()) return RunStatus::running;
  return run.has_checkpoint() ? RunStatus::stopped : RunStatus::failed;
}

// The last record of a run that ended is its last validation, but for what it did before it diverged.
void check_records_reach(const RunFolder& run, const RunResult& result, RunStatus status) {
  const int64_t every = run.config().train.validate_every;
  const int64_t due = status == RunStatus::diverged ? result.step / every * every : result.step;
  const int64_t found = run.progress().validated_step;
  if (found >= due) return;
  log::warn(run.path() + "/metrics.jsonl: records are missing at its end: the last validation in it is " +
            (found > 0 ? "of step " + std::to_string(found) : "none") +
            ", and by result.json there was one at step " + std::to_string(due) +
            "; the table takes the numbers of result.json");
}

}  // namespace

std::vector<std::string> find_runs(const std::vector<std::string>& paths,
                                   std::vector<std::string>* passed_over) {
  std::vector<std::string> runs, unread;
  std::set<fs::path> seen;
  for (const auto& path : paths) {
    if (!fs::is_directory(path))
      throw DataError(path + ": no such folder; name run folders, or folders that hold them");
    std::vector<std::string> found;
    search(path, found, unread);
    if (found.empty()) throw DataError(path + ": holds no run of hax; `hax train --out` makes one");
    for (const auto& run : found) {
      if (seen.insert(fs::canonical(run)).second) runs.push_back(run);
    }
  }
  if (passed_over != nullptr) passed_over->insert(passed_over->end(), unread.begin(), unread.end());
  return runs;
}

RunRecord read_run(const std::string& folder) {
  const RunFolder run = RunFolder::open(folder);
  RunRecord out;
  out.path = folder;
  out.config = run.config();
  const auto result = run.result();
  out.status = status_of(run, result ? result->status : "");
  if (result) {
    out.valid_accuracy = result->best_accuracy;
    out.best_step = result->best_step;
    out.step = result->step;
    out.tokens_seen = result->tokens_seen;
    out.seconds = result->seconds;
    check_records_reach(run, *result, out.status);
  } else {
    const RunProgress progress = run.progress();
    out.valid_accuracy = progress.best_accuracy;
    out.best_step = progress.best_step;
    out.step = progress.step;
    out.tokens_seen = progress.tokens_seen;
    out.seconds = run.seconds_so_far();
  }
  for (const auto& checkpoint : {run.best_checkpoint(), run.last_checkpoint()}) {
    if (!fs::exists(checkpoint)) continue;
    const CheckpointInfo info = read_checkpoint_info(checkpoint);
    run.check_config(info.config, checkpoint);
    out.data_fingerprint = info.data_fingerprint;
    out.vocab_size = info.data.vocab_size;
    out.chance = info.data.chance;
    break;
  }
  return out;
}

}  // namespace hax
