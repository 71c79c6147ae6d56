// Tables of evaluations: one row a run, or one row a run and slice.
#pragma once

#include <string>
#include <vector>

#include "lib/eval/evaluate.h"
#include "lib/eval/state.h"
#include "lib/eval/table.h"

namespace hax {

struct EvaluatedRun {
  std::string label;  // config name, or the checkpoint's path
  CheckpointInfo info;
  Evaluation evaluation;
  int64_t parameters = 0;
  std::optional<MeasuredState> state;  // none where the model cannot decode
};

// by: slice columns of the data, e.g. {"n_context", "n_key"}; empty: one row a run. Throws UsageError naming
// a column that the data lacks and those that it has.
Table accuracy_table(const std::vector<EvaluatedRun>& runs, const DataSpec& data,
                     const std::string& data_name, const std::vector<std::string>& by);

// "mamba2", or "mamba+attention": one a layer of the turn.
std::string mixer_names(const ModelConfig& config);

// "lsh+key_selection", or "none".
std::string pattern_names(const ModelConfig& config);

}  // namespace hax
