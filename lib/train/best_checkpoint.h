// The checkpoint that stands for a run: its best. A last one in its place would put another number under the
// heading "best", so what is missing, damaged or of another state is told.
#pragma once

#include <string>

#include "lib/train/run_folder.h"

namespace hax {

// The best checkpoint; the last where it holds the same weights, or where the run was never validated.
// Throws DataError when there is none, when the best is missing beside a last one of another step, and when a
// run that has ended says that its best was of another step than this file.
std::string checkpoint_of(const RunFolder& run);

// The best or else the last, whatever they hold: for what all checkpoints of a run share.
std::string any_checkpoint_of(const RunFolder& run);

// Whether a run that goes on from `state` has the best checkpoint that the state speaks of, or a later one
// that it will write again. Where it has not, a warning names the file and the reason; a file that is damaged
// or of another run or state is set aside as *.corrupt. Throws DataError when the file cannot be read.
bool has_usable_best(const RunFolder& run, const CheckpointInfo& state);

}  // namespace hax
