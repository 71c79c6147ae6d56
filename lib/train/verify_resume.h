// Does a run that is interrupted and goes on end with the same bytes as one that is not? Tried, not argued.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/train/compare_runs.h"
#include "lib/train/trainer.h"

namespace hax {

struct VerifyOptions {
  std::string folder;                 // scratch, existing; takes the run folders whole, stopped and killed
  int64_t at = 0;                     // the step before which the runs are interrupted; 0 < at < train.steps
  std::function<bool()> should_stop;  // ends the trial
  std::function<void(const std::string&)> progress;  // one line
};

struct VerifiedResume {
  std::string how;                  // "stopped" or "killed"
  int64_t from = 0;                 // the step from which the run went on
  std::vector<ComparedFile> files;  // against the run that was not interrupted
  bool equal() const;
};

// Trains the config three times: without interruption; stopped at a step with the state saved, and resumed;
// killed there with nothing saved, and resumed from its last checkpoint. Each resume begins with a new model
// that reads the folder. Empty when should_stop said so. Throws UsageError for an `at` out of range.
std::vector<VerifiedResume> verify_resume(const Config& config, const ExampleSource& train,
                                          const ExampleSource& valid, at::Device device,
                                          const VerifyOptions& options);

}  // namespace hax
