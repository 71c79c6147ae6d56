#include "lib/train/best_checkpoint.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/log.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

struct BestValidation {
  double accuracy = -1.0;  // -1: never validated
  int64_t step = 0;
};

BestValidation best_validation(const RunFolder& run, const std::optional<RunResult>& result,
                               const CheckpointInfo& last) {
  if (result) return {result->best_accuracy, result->best_step};
  if (last.best_accuracy >= 0.0) return {last.best_accuracy, last.best_step};
  const RunProgress progress = run.progress();
  return {progress.best_accuracy, progress.best_step};
}

// How a run gets a best checkpoint again.
std::string remedy(const RunFolder& run, bool ended) {
  const std::string again = "`hax train --out " + run.path() + "`";
  return ended ? "restore it, or remove " + run.path() + "/result.json and let " + again +
                     " validate the last state again, which then is the run's best"
               : "restore it, or let " + again + " go on, which writes a new one at its next validation";
}

[[noreturn]] void refuse_without_checkpoint(const RunFolder& run, const std::optional<RunResult>& result) {
  if (result && result->status == "diverged") {
    throw DataError(run.path() +
                    ": the run diverged before its first checkpoint, so there is nothing to evaluate; "
                    "train it anew into another --out, with a lower train.lr or train.checkpoint_every");
  }
  if (result) {
    throw DataError(run.path() + ": the run has ended (" + result->status +
                    ") and its checkpoints are gone; to train it anew remove " + run.path() +
                    "/result.json and let `hax train --out " + run.path() + "` begin again");
  }
  throw DataError(run.path() + ": the run has no checkpoint yet; let `hax train --out " + run.path() +
                  "` go on");
}

// Why the file is not the best checkpoint of a run in this state; empty where it is.
std::string fault_of_best(const RunFolder& run, const CheckpointInfo& state) {
  const std::string path = run.best_checkpoint();
  CheckpointInfo best;
  try {
    best = read_checkpoint_info(path);
  } catch (const DataError& e) {
    return e.what();
  }
  try {
    run.check_config(best.config, path);
  } catch (const DataError&) {
    return path + ": is of a run of another config";
  }
  if (best.data_fingerprint != state.data_fingerprint) return path + ": is of a run on other training data";
  const bool spoken_of = best.step == state.best_step && best.best_accuracy == state.best_accuracy;
  // Written after the state was saved, by a validation that is done again.
  const bool later = best.step >= state.step && best.best_accuracy > state.best_accuracy;
  if (spoken_of || later) return "";
  return path + ": holds the state of step " + std::to_string(best.step) +
         (state.best_accuracy < 0.0 ? ", and the run was not validated yet"
                                    : ", and the run's best is of step " + std::to_string(state.best_step));
}

}  // namespace

std::string checkpoint_of(const RunFolder& run) {
  const std::string best = run.best_checkpoint(), last = run.last_checkpoint();
  const auto result = run.result();
  if (fs::exists(best)) {
    if (!result) return best;
    const int64_t step = read_checkpoint_info(best).step;
    if (step == result->best_step) return best;
    throw DataError(best + ": holds the state of step " + std::to_string(step) +
                    ", and the run's best validation was at step " + std::to_string(result->best_step) +
                    "; " + remedy(run, true));
  }
  if (!run.has_checkpoint()) refuse_without_checkpoint(run, result);
  const CheckpointInfo info = read_checkpoint_info(last);
  const BestValidation expected = best_validation(run, result, info);
  if (expected.accuracy < 0.0 || expected.step == info.step) return last;
  throw DataError(best + ": is missing, and the run's best validation was at step " +
                  std::to_string(expected.step) + "; " + remedy(run, result.has_value()) +
                  ". What is left is of step " + std::to_string(info.step) + " (`hax eval --checkpoint " +
                  last + "`)");
}

std::string any_checkpoint_of(const RunFolder& run) {
  if (fs::exists(run.best_checkpoint())) return run.best_checkpoint();
  if (!run.has_checkpoint()) refuse_without_checkpoint(run, run.result());
  return run.last_checkpoint();
}

bool has_usable_best(const RunFolder& run, const CheckpointInfo& state) {
  const std::string path = run.best_checkpoint(), then = "the next validation writes a new one";
  if (!fs::exists(path)) {
    if (state.best_accuracy < 0.0) return true;
    log::warn(path + ": is missing (the run's best was of step " + std::to_string(state.best_step) + "); " +
              then);
    return false;
  }
  if (::access(path.c_str(), R_OK) != 0)
    throw DataError("cannot read " + path + ": " + std::strerror(errno) +
                    "; let this user read it, or move it away");
  const std::string fault = fault_of_best(run, state);
  if (fault.empty()) return true;
  fs::rename(path, path + ".corrupt");
  log::warn(fault + "; it is set aside as " + path + ".corrupt, and " + then);
  return false;
}

}  // namespace hax
