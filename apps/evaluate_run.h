// Evaluation of runs and checkpoints on a split of a dataset: what `hax eval` and `hax table` share.
#pragma once

#include <string>

#include "data_gen/task.h"
#include "lib/data/dataset.h"
#include "lib/eval/report.h"
#include "lib/train/best_checkpoint.h"

namespace hax {

// An opened split and its name for messages and captions.
struct EvaluationSplit {
  // Throws DataError when the folder is not sound or the split is empty.
  EvaluationSplit(const std::string& folder, const std::string& split, int threads);
  const FileSource& examples() const { return *examples_; }

  Dataset dataset;
  std::string name;  // "runs/data (test)"

 private:
  const FileSource* examples_;
};

// Throws DataError when the split does not fit the model or is the data it was trained on. The result is
// partial when a signal asked to stop (lib/base/signals.h). With the `task` of the data the result has
// positions.
EvaluatedRun evaluate_checkpoint(const std::string& path, const std::string& label,
                                 const EvaluationSplit& split, at::Device device, int64_t batch_size,
                                 const Task* task = nullptr);

}  // namespace hax
