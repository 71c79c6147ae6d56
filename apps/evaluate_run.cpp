#include "apps/evaluate_run.h"

#include <filesystem>

#include "apps/signals.h"
#include "lib/base/error.h"
#include "lib/train/train_step.h"

namespace hax {

EvaluationSplit::EvaluationSplit(const std::string& folder, const std::string& split, int threads)
    : dataset(Dataset::open(folder, threads)),
      name(folder + " (" + split + ")"),
      examples_(&dataset.split(parse_split(split))) {
  if (examples_->size() == 0) throw DataError(name + ": the split is empty; choose another with --split");
}

std::string checkpoint_of(const RunFolder& run) {
  if (std::filesystem::exists(run.best_checkpoint())) return run.best_checkpoint();
  if (run.has_checkpoint()) return run.last_checkpoint();
  throw DataError(run.path() + ": the run has no checkpoint yet; let `hax train --out " + run.path() +
                  "` go on");
}

EvaluatedRun evaluate_checkpoint(const std::string& path, const std::string& label,
                                 const EvaluationSplit& split, at::Device device, int64_t batch_size,
                                 std::vector<int32_t>* predicted) {
  auto loaded = read_checkpoint(path, device);
  const FileSource& examples = split.examples();
  check_fits(loaded.info, examples.spec(), split.name);
  if (examples.fingerprint() == loaded.info.data_fingerprint) {
    throw DataError(split.name + ": is the data that " + path +
                    " was trained on; evaluate on the test split");
  }
  EvaluatedRun run;
  run.label = label;
  const at::ScalarType compute = compute_dtype(loaded.info.config.train.precision);
  run.evaluation =
      evaluate(*loaded.model, *loaded.draws, examples, 0, batch_size, compute, stop_requested, predicted);
  run.parameters = loaded.model->parameters().numel();
  if (!stop_requested()) run.state = measure_state(*loaded.model, *loaded.draws, examples, compute);
  run.info = std::move(loaded.info);
  return run;
}

}  // namespace hax
