#include "apps/evaluate_run.h"

#include "data_gen/overlap.h"
#include "data_gen/registry.h"
#include "lib/base/error.h"
#include "lib/base/signals.h"
#include "lib/train/train_step.h"

namespace hax {
namespace {

// What the task says of the first n examples' questions and of the predictions for them.
ScoredPositions examine(const Task& task, const FileSource& examples, int64_t n,
                        const std::vector<int32_t>& predicted) {
  ScoredPositions out;
  out.error_kinds = task.error_kinds();
  out.begin = {0};
  Example example;
  size_t p = 0;
  for (int64_t i = 0; i < n; ++i) {
    examples.example(i, example);
    const auto sources = task.sources(example);
    for (size_t s = 0; s < example.scored.size(); ++s, ++p) {
      out.distance.push_back(sources[s] < 0 ? -1 : example.scored[s] - sources[s]);
      const bool right = predicted.at(p) == example.targets[s];
      out.error.push_back(right ? -1 : static_cast<int32_t>(task.error_kind(example, s, predicted[p])));
    }
    out.begin.push_back(static_cast<int64_t>(p));
  }
  return out;
}

// How many of the split's examples were among those that a stream drew for the model; nothing where the
// dataset that the stream was kept apart from is not at hand.
std::optional<int64_t> examples_drawn(const CheckpointInfo& model, const EvaluationSplit& split,
                                      const OverlapOptions& options) {
  const std::shared_ptr<const Task> task = make_task(model.config.task);
  const int64_t seed = model.config.data.seed;
  const auto is_apart_from = [&](const Manifest& manifest) {
    return TaskStream(task, seed, {}, manifest.fingerprint()).fingerprint() == model.data_fingerprint;
  };
  const auto count = [&](const Dataset& held_out) {
    const TaskStream stream(task, seed, evaluation_examples(held_out), held_out.manifest().fingerprint());
    const int64_t batches = model.step + model.skipped_batches;
    return shared_examples(split.examples(), stream, batches * model.config.train.batch_size, options);
  };
  if (is_apart_from(split.dataset.manifest())) {
    const bool held_out = &split.examples() != &split.dataset.split(Split::train);
    return held_out ? 0 : count(split.dataset);
  }
  const std::string& folder = model.config.data.path;
  if (!is_apart_from(read_manifest(folder))) return std::nullopt;
  return count(Dataset::open(folder, options.threads));
}

// How many of the split's examples the model was trained on; nothing where its training data are not at hand.
std::optional<int64_t> examples_seen(const CheckpointInfo& model, const EvaluationSplit& split) {
  const OverlapOptions options = {static_cast<int>(at::get_num_threads()), stop_requested};
  if (split.dataset.manifest().split(Split::train).checksum == model.data_fingerprint)
    return shared_examples(split.examples(), split.dataset.split(Split::train), options);
  const std::string& folder = model.config.data.path;
  try {
    if (model.config.data.source == DataSource::stream) return examples_drawn(model, split, options);
    const Manifest manifest = read_manifest(folder);
    if (manifest.split(Split::train).checksum != model.data_fingerprint) return std::nullopt;
    return shared_examples(split.examples(), FileSource(folder, Split::train, manifest, options.threads),
                           options);
  } catch (const DataError&) {
    return std::nullopt;
  }
}

}  // namespace

EvaluationSplit::EvaluationSplit(const std::string& folder, const std::string& split, int threads)
    : dataset(Dataset::open(folder, threads)),
      name(folder + " (" + split + ")"),
      examples_(&dataset.split(parse_split(split))) {
  if (examples_->size() == 0) throw DataError(name + ": the split is empty; choose another with --split");
}

EvaluatedRun evaluate_checkpoint(const std::string& path, const std::string& label,
                                 const EvaluationSplit& split, at::Device device, int64_t batch_size,
                                 const Task* task) {
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
  std::vector<int32_t> predicted;
  run.evaluation = evaluate(*loaded.model, *loaded.draws, examples, 0, batch_size, compute, stop_requested,
                            task != nullptr ? &predicted : nullptr);
  if (task != nullptr) run.positions = examine(*task, examples, run.evaluation.size(), predicted);
  run.seen = examples_seen(loaded.info, split);
  run.parameters = loaded.model->parameters().numel();
  if (!stop_requested()) run.state = measure_state(*loaded.model, *loaded.draws, examples, compute);
  run.info = std::move(loaded.info);
  return run;
}

}  // namespace hax
