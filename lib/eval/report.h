// Tables of evaluations: accuracy and errors, a run at a time or sliced.
#pragma once

#include <string>
#include <vector>

#include "lib/eval/evaluate.h"
#include "lib/eval/slices.h"
#include "lib/eval/state.h"
#include "lib/eval/table.h"

namespace hax {

struct EvaluatedRun {
  std::string label;  // config name, or the checkpoint's path
  CheckpointInfo info;
  Evaluation evaluation;
  ScoredPositions positions;  // for tables by distance and of errors
  int64_t parameters = 0;
  std::optional<MeasuredState> state;  // none where the model cannot decode
  std::optional<int64_t> seen;         // examples that are among its training data; none: not known
};

// One row a run and slice; `by` as of Slicing, empty: one row a run.
Table accuracy_table(const std::vector<EvaluatedRun>& runs, const DataSpec& data,
                     const std::string& data_name, const std::vector<std::string>& by);

// What the wrong answers were: one row a run, slice and kind of error, with its share of the slice's errors.
// Needs the runs' positions.
Table error_table(const std::vector<EvaluatedRun>& runs, const DataSpec& data, const std::string& data_name,
                  const std::vector<std::string>& by);

// "mamba2", or "mamba+attention": one a layer of the turn.
std::string mixer_names(const ModelConfig& config);

// "lsh+key_selection", or "none".
std::string pattern_names(const ModelConfig& config);

}  // namespace hax
