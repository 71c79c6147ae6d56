// Runs into cells of a table: runs that agree in all row and column keys share a cell, and a cell's number
// is the mean over runs that differ in their seed alone.
//
// Which runs count: those that ended. A run that diverged counts with its best accuracy before it did, and
// with 0 where it was never validated, so that an unstable setting cannot look good by its survivors.
// Runs that have not ended are numbered and left out, unless `count_unfinished` takes their best so far.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/config/lookup.h"
#include "lib/eval/run_record.h"
#include "lib/eval/student_t.h"

namespace hax {

struct Grouping {
  std::vector<std::string> rows, columns;          // dotted keys
  std::string best_of;                             // dotted key whose best value a cell shows; empty: none
  std::vector<std::string> over = {"train.seed"};  // a cell's mean runs over these
  bool count_unfinished = false;
  bool evaluated = false;  // show RunRecord::accuracy instead of valid_accuracy
};

struct CellOfRuns {
  std::vector<KeyValue> rows, columns;    // values of the keys, in their order
  std::optional<KeyValue> best;           // the chosen value of best_of
  int64_t tried = 0;                      // how many values of best_of there were
  MeanInterval accuracy;                  // in [0, 1]
  std::vector<const RunRecord*> counted;  // the runs in the mean
  std::vector<double> accuracies;         // of each
  int64_t diverged = 0;                   // of those counted
  int64_t diverged_unvalidated = 0;       // of those diverged: counted as 0
  int64_t unfinished = 0;                 // of the cell's runs with the chosen value, counted or not
  bool uneven = false;                    // the values of best_of have different numbers of counted runs
};

// Whether the run's accuracy goes into a mean.
bool counts(const RunRecord& run, const Grouping& grouping);

// In the order of the rows, then the columns: by number for keys that are numbers, else by first appearance
// among the runs. best_of chooses by the mean *validation* accuracy, the first of equals, whatever
// is shown. The records are borrowed.
// Throws UsageError where runs of one cell differ in another key than these, naming the keys and values, in
// their training data, or in nothing at all.
std::vector<CellOfRuns> group_runs(const std::vector<RunRecord>& runs, const Grouping& grouping);

}  // namespace hax
