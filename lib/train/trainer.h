// The training loop: schedule, validation, checkpoints, early stop, resume. A run that is interrupted goes on
// from its last checkpoint; one that has finished is left as it is.
#pragma once

#include <functional>

#include "lib/train/run_folder.h"

namespace hax {

enum class TrainEnd { finished, target_reached, diverged, stopped };

struct TrainOutcome {
  TrainEnd end = TrainEnd::finished;
  RunResult result;
};

struct TrainHooks {
  // Asked before each step and each batch of a validation, with the number of steps that were started; true
  // saves and returns `stopped`. What it throws ends the run as a kill would: nothing more is saved.
  std::function<bool(int64_t step)> should_stop;
  std::function<void(const std::string&)> progress;  // one line: step, loss, accuracy, tokens/s, ETA
};

// `train` and `valid` must agree in vocabulary and task (DataError otherwise). Writes only into `run`.
TrainOutcome train(const RunFolder& run, const ExampleSource& train, const ExampleSource& valid,
                   at::Device device, const TrainHooks& hooks);

}  // namespace hax
