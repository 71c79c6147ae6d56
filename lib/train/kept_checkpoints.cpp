#include "lib/train/kept_checkpoints.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/log.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step-", kSuffix = ".safetensors";
constexpr int64_t kHeaderBytes = 1 << 18;  // of a checkpoint, at most: config, names and shapes

void remove(const KeptCheckpoint& checkpoint) {
  if (::unlink(checkpoint.path.c_str()) != 0 && errno != ENOENT)
    throw RuntimeError("cannot remove " + checkpoint.path + ": " + std::strerror(errno));
}

// Throws DataError when the file is not one that a run can go on from.
LoadedCheckpoint read_training_checkpoint(const std::string& path, at::Device device) {
  auto loaded = read_checkpoint(path, device);
  if (!loaded.optimizer.exp_avg.defined())
    throw DataError(path + ": holds no optimiser state, so the run cannot go on from it");
  return loaded;
}

}  // namespace

std::vector<KeptCheckpoint> kept_checkpoints(const RunFolder& run) {
  std::vector<KeptCheckpoint> found;
  const std::string folder = run.path() + "/checkpoints";
  if (!fs::is_directory(folder)) return found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
    const char *begin = name.data() + kPrefix.size(), *end = name.data() + name.size() - kSuffix.size();
    int64_t step = 0;
    const auto [last, error] = std::from_chars(begin, end, step);
    if (error == std::errc() && last == end) found.push_back({step, entry.path().string()});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
  return found;
}

void keep_last_checkpoint(const RunFolder& run, int64_t step) {
  const std::string last = run.last_checkpoint();
  const std::string kept =
      run.path() + "/checkpoints/" + std::string(kPrefix) + std::to_string(step) + std::string(kSuffix);
  // A former one of this step is from before a rewind.
  if (!run.has_checkpoint()) return;
  remove({step, kept});
  if (::link(last.c_str(), kept.c_str()) == 0) return;
  // No links here: until the next checkpoint is written, this one is the newest.
  if (::rename(last.c_str(), kept.c_str()) != 0)
    throw RuntimeError("cannot rename " + last + ": " + std::strerror(errno));
}

void drop_old_checkpoints(const RunFolder& run, int64_t most) {
  const auto kept = kept_checkpoints(run);
  for (size_t i = static_cast<size_t>(most); i < kept.size(); ++i) remove(kept[i]);
}

void drop_later_checkpoints(const RunFolder& run, int64_t step) {
  for (const auto& checkpoint : kept_checkpoints(run)) {
    if (checkpoint.step > step) remove(checkpoint);
  }
}

LoadedCheckpoint read_newest_checkpoint(const RunFolder& run, at::Device device) {
  std::vector<std::string> paths, faults;
  if (run.has_checkpoint())
    paths.push_back(run.last_checkpoint());
  else
    log::warn(run.last_checkpoint() + ": is missing");
  for (const auto& kept : kept_checkpoints(run)) paths.push_back(kept.path);
  for (const auto& path : paths) {
    if (::access(path.c_str(), R_OK) != 0)
      throw DataError("cannot read " + path + ": " + std::strerror(errno));
    try {
      auto loaded = read_training_checkpoint(path, device);
      for (size_t i = 0; i < faults.size(); ++i) {
        fs::rename(paths[i], paths[i] + ".corrupt");
        log::warn(faults[i] + "; it is set aside as " + paths[i] + ".corrupt");
      }
      if (!faults.empty() || path != run.last_checkpoint())
        log::warn("going on from the checkpoint before it, " + path);
      return loaded;
    } catch (const DataError& e) {
      faults.emplace_back(e.what());
    }
  }
  std::string text;
  for (const auto& fault : faults) text += fault + "\n";
  throw DataError(text + run.path() + ": no checkpoint is left to go on from; remove " + run.path() +
                  "/checkpoints to let the run start over, or train into another --out");
}

void require_room_for_checkpoints(const RunFolder& run, const LanguageModel& model) {
  const auto& parameters = model.parameters();
  const int64_t weights = parameters.numel() * static_cast<int64_t>(parameters.flat().element_size());
  const TrainConfig& t = run.config().train;
  // Beside those that are kept there is one under construction.
  const int64_t wanted = 1 + t.keep_last + (t.on_divergence == OnDivergence::rewind ? 1 : 0);
  int64_t present = static_cast<int64_t>(kept_checkpoints(run).size()) + (run.has_checkpoint() ? 1 : 0) +
                    (fs::exists(run.rewind_checkpoint()) ? 1 : 0);
  const std::string folder = run.path() + "/checkpoints";
  try {
    require_room(folder, 3 * weights + kHeaderBytes, std::max<int64_t>(1, wanted - present));
  } catch (const RuntimeError& e) {
    throw RuntimeError(std::string(e.what()) + "; a run of this config needs room for " +
                       std::to_string(wanted) + " checkpoints (a smaller train.keep_last needs less)");
  }
}

}  // namespace hax
