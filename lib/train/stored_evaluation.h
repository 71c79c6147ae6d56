// Evaluations of a run's best checkpoint, kept in the run folder so that a second table need not repeat
// them: eval-FINGERPRINT.json, one an evaluation split, named by the split's fingerprint. They carry a
// checksum of their other keys.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "lib/train/run_folder.h"

namespace hax {

struct StoredEvaluation {
  std::string data;              // for people: "runs/data (test)"
  std::string data_fingerprint;  // of the split
  std::string checkpoint;        // checksum of the checkpoint's file
  int64_t step = 0;              // of the checkpoint
  double accuracy = 0.0;         // in [0, 1]
  double standard_error = 0.0;   // over examples
  double loss = 0.0;
  int64_t examples = 0;
  std::optional<int64_t> seen;  // of them, how many the run was trained on; none: not known
};

// The evaluation of this very checkpoint on this very split; nothing where there is none, or one of another
// checkpoint. Nor where the file is damaged or carries no checksum, which a warning says: evaluating again
// replaces it.
std::optional<StoredEvaluation> read_evaluation(const RunFolder& run, const std::string& data_fingerprint,
                                                const std::string& checkpoint);
void write_evaluation(const RunFolder& run, const StoredEvaluation& evaluation);

}  // namespace hax
