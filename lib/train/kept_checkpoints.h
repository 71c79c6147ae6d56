// The checkpoints of a run beside last.safetensors and best.safetensors:
//   step-N.safetensors   former last checkpoints, at multiples of train.checkpoint_every: what a run goes on
//                        from when the last one is damaged
//   rewind.safetensors   under train.on_divergence = rewind: the state at the last validation
//   *.corrupt            damaged ones that were set aside
// Which ones a run ends with does not depend on interruptions: a state that was saved because it was stopped is
// never kept as a step-N, and dropping waits for the next checkpoint of the interval.
#pragma once

#include <string>
#include <vector>

#include "lib/train/run_folder.h"

namespace hax {

struct KeptCheckpoint {
  int64_t step = 0;
  std::string path;
};
std::vector<KeptCheckpoint> kept_checkpoints(const RunFolder& run);  // step-N alone, newest first

// The last checkpoint, of `step`, stays under its step's name as well.
void keep_last_checkpoint(const RunFolder& run, int64_t step);
// Removes all but the newest `most`.
void drop_old_checkpoints(const RunFolder& run, int64_t most);
// Removes those after `step`.
void drop_later_checkpoints(const RunFolder& run, int64_t step);

// The newest training checkpoint that is sound. Damaged newer ones are named in a warning and set aside.
// Throws DataError when there is none, and then leaves them where they are.
LoadedCheckpoint read_newest_checkpoint(const RunFolder& run, at::Device device);

// Throws RuntimeError when the checkpoints of such a model will not fit into the run's folder.
void require_room_for_checkpoints(const RunFolder& run, const LanguageModel& model);

}  // namespace hax
