// Tables over many runs: a list, one row a cell with its details, or a pivot with a cell for each pair of
// row and column values. The caption says what the number is, how a value was chosen and under which
// statistics; the notes say which runs are in it.
#pragma once

#include <string>
#include <vector>

#include "lib/eval/group_runs.h"
#include "lib/eval/table.h"

namespace hax {

struct RunTableOptions {
  Grouping grouping;
  std::string data_name;        // the split that RunRecord::accuracy is on; empty: best validation accuracy
  bool details = false;         // seeds, single accuracies, parameters, state, steps, tokens, time
  bool bound = false;           // the information bound of the state (lib/eval/information_bound.h)
  int64_t data_vocab_size = 0;  // of the split of `data_name`
  std::vector<std::string> left_out;  // runs and folders that could not be read
};

// Adds task.name and model.mode to the rows where the runs differ in them and no key of the table shows it. A
// pivot has no details and no bound (UsageError); a list has its column keys after the row keys.
// Throws what group_runs does, and UsageError where `bound` meets a task that has none.
Table run_list(const std::vector<RunRecord>& runs, RunTableOptions options);
Table run_pivot(const std::vector<RunRecord>& runs, RunTableOptions options);

}  // namespace hax
