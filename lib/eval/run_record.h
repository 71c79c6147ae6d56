// What a table knows of one run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "lib/config/config.h"
#include "lib/eval/state.h"

namespace hax {

enum class RunStatus {
  finished,        // did all its steps
  target_reached,  // stopped early at train.target_accuracy
  diverged,        // met a loss or gradient that is not finite
  running,         // a process is training it
  stopped,         // interrupted; goes on from its last checkpoint
  failed,          // ended before its first checkpoint: nothing to go on from
};
const char* status_name(RunStatus status);  // "target reached"

struct RunRecord {
  std::string path;
  Config config;
  RunStatus status = RunStatus::failed;
  double valid_accuracy = -1.0;  // best of the run, in [0, 1]; -1: never validated
  int64_t best_step = 0;         // where that was
  int64_t step = 0;              // updates done
  int64_t tokens_seen = 0;
  double seconds = 0.0;
  std::string data_fingerprint;  // of the training data; empty without a checkpoint
  int64_t vocab_size = 0;        // that the model reads; 0: not known

  // Of the best checkpoint, where the table asks for it.
  std::optional<double> accuracy;      // on the table's evaluation split
  int64_t seen = 0;                    // examples of that split that the run is known to be trained on
  int64_t parameters = 0;              // 0: not known
  std::optional<MeasuredState> state;  // none: not measured, or the model cannot decode
  double chance = 0.0;                 // accuracy of guessing, in [0, 1]; 0: not known

  bool ended() const { return status <= RunStatus::diverged; }
};

}  // namespace hax
