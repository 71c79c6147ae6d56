#include "apps/sources.h"

#include "data_gen/registry.h"
#include "data_gen/stream.h"
#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/base/parallel.h"
#include "lib/config/check.h"
#include "lib/config/names.h"
#include "lib/config/write.h"
#include "lib/data/dataset.h"

namespace hax {
namespace {

// The task that the data are of, whatever the config says of it.
void take_task(Config& config, const Manifest& manifest) {
  Config taken = config;
  taken.task = task_config(manifest, config.data.path);
  const std::string section = "task." + std::string(name_of(config.task.name)) + ".";
  std::string text;
  for (const std::string& line : difference(config, taken)) {
    const bool as_many_as_needed = line.starts_with(section + "vocab_size: 0 -> ");
    if (line.starts_with(section) && !as_many_as_needed) text += "\n  " + line;
  }
  if (!text.empty()) {
    log::warn(
        config.data.path +
        ": was made with other settings of its task than the config has; those of the data count:" + text);
  }
  config = taken;
}

}  // namespace

TrainingSources open_training_sources(Config& config) {
  const auto missing = check_for_training(config);
  if (!missing.empty()) {
    std::string text;
    for (const auto& line : missing) text += (text.empty() ? "" : "\n") + line;
    throw UsageError(text);
  }
  const int threads = config.train.threads > 0 ? static_cast<int>(config.train.threads) : hardware_threads();
  const auto dataset = std::make_shared<const Dataset>(Dataset::open(config.data.path, threads));
  const std::shared_ptr<const ExampleSource> valid(dataset, &dataset->split(Split::valid));
  if (valid->size() == 0) {
    throw DataError(config.data.path +
                    ": its validation split is empty; generate it with data.valid_examples > 0");
  }
  if (config.data.source == DataSource::file) {
    if (name_of(config.task.name) != dataset->spec().task) {
      throw UsageError("task.name = " + std::string(name_of(config.task.name)) + ", but " + config.data.path +
                       " holds " + dataset->spec().task + "; set task.name = " + dataset->spec().task +
                       ", or name another data.path");
    }
    if (dataset->split(Split::train).size() == 0) {
      throw DataError(config.data.path +
                      ": its training split is empty; generate it with data.train_examples > 0, or "
                      "train on data.source = stream");
    }
    take_task(config, dataset->manifest());
    return {std::shared_ptr<const ExampleSource>(dataset, &dataset->split(Split::train)), valid};
  }
  const std::shared_ptr<const Task> task = make_task(config.task);
  if (task->spec().task != dataset->spec().task || task->spec().vocab_size != dataset->spec().vocab_size) {
    throw DataError(
        config.data.path + ": holds the task '" + dataset->spec().task + "' with a vocabulary of " +
        std::to_string(dataset->spec().vocab_size) + ", the stream draws '" + task->spec().task + "' with " +
        std::to_string(task->spec().vocab_size) + "; make the evaluation data from the same `task` section");
  }
  auto stream = std::make_shared<TaskStream>(task, config.data.seed, evaluation_examples(*dataset),
                                             dataset->manifest().fingerprint());
  return {stream, valid};
}

}  // namespace hax
