#include <filesystem>

#include "apps/commands.h"
#include "data_gen/check_examples.h"
#include "data_gen/registry.h"
#include "data_gen/stream.h"
#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/base/parallel.h"
#include "lib/check/check_model.h"
#include "lib/config/load.h"
#include "lib/config/names.h"
#include "lib/data/dataset.h"
#include "lib/model/device.h"
#include "lib/model/precision.h"
#include "lib/train/run_folder.h"

namespace hax {
namespace {

struct Options {
  std::string run, device = "auto";
  std::vector<std::string> configs, sets;
  int64_t examples = 200;
  bool json = false;
};

constexpr int64_t kModelExamples = 4;  // that the model's checks read

// Where examples come from: a split of the run's dataset, else the task itself.
struct Examples {
  std::shared_ptr<const Task> task;
  std::shared_ptr<const Dataset> dataset;  // null: drawn on the fly
  std::string origin;
  int64_t count = 0;
  std::function<void(int64_t, Example&)> example;

  const DataSpec& spec() const { return task->spec(); }
};

Examples drawn(const Config& config, int64_t wanted) {
  Examples examples;
  examples.task = make_task(config.task);
  const auto stream =
      std::make_shared<const TaskStream>(examples.task, config.data.seed, ExampleSet(), std::string());
  examples.origin = "of task " + std::string(name_of(config.task.name));
  examples.count = wanted;
  examples.example = [stream](int64_t index, Example& result) { stream->example(index, result); };
  return examples;
}

Examples stored(const std::string& folder, int64_t wanted) {
  Examples examples;
  const auto dataset = std::make_shared<const Dataset>(Dataset::open(folder, hardware_threads()));
  const FileSource* source = nullptr;
  for (Split split : {Split::valid, Split::test, Split::train}) {
    if (!source && dataset->split(split).size() > 0) {
      source = &dataset->split(split);
      examples.origin = "of " + folder + " (" + std::string(split_name(split)) + ")";
    }
  }
  if (!source) throw DataError(folder + ": every split is empty");
  examples.task = make_task(dataset->manifest(), folder);
  examples.dataset = dataset;
  examples.count = std::min(wanted, source->size());
  examples.example = [dataset, source](int64_t index, Example& result) { source->example(index, result); };
  return examples;
}

CheckResult check_data(const Examples& examples) {
  const std::string bad = first_bad_example(*examples.task, examples.count, examples.example);
  if (!bad.empty()) return {"data", Verdict::fail, bad + " " + examples.origin};
  return {"data", Verdict::pass,
          std::to_string(examples.count) + " examples " + examples.origin +
              " obey its rules, and the oracle answers every question"};
}

Batch first_examples(const Examples& examples) {
  Batch batch = empty_batch(examples.spec());
  Example example;
  for (int64_t i = 0; i < std::min(kModelExamples, examples.count); ++i) {
    examples.example(i, example);
    append(examples.spec(), example, batch);
  }
  return batch;
}

int run_check(const Options& options) {
  if (options.run.empty() && options.configs.empty()) {
    throw UsageError("check: nothing to check; give a run folder, or --config FILE");
  }
  if (!options.run.empty() && !options.configs.empty()) {
    throw UsageError("check: a run folder and --config FILE are two models; give one of them");
  }
  if (!options.run.empty() && !options.sets.empty()) {
    throw UsageError("--set: a run is checked as it is; use it with --config");
  }
  Config config;
  std::optional<LoadedCheckpoint> loaded;
  const at::Device device = choose_device(value_of<DeviceKind>(options.device).value(), "--device");
  if (options.run.empty()) {
    config = load_config(options.configs, options.sets);
  } else {
    const RunFolder run = RunFolder::open(options.run);
    config = run.config();
    const bool validated = std::filesystem::exists(run.best_checkpoint());
    if (!validated && !run.has_checkpoint()) {
      throw DataError(options.run + ": the run has no checkpoint yet; check its config with --config " +
                      options.run + "/config.yaml");
    }
    loaded = read_checkpoint(validated ? run.best_checkpoint() : run.last_checkpoint(), device);
  }
  if (config.train.threads > 0) at::set_num_threads(static_cast<int>(config.train.threads));

  const bool has_data = !config.data.path.empty() && std::filesystem::exists(config.data.path);
  const Examples examples =
      has_data ? stored(config.data.path, options.examples) : drawn(config, options.examples);
  const std::unique_ptr<LanguageModel> model =
      loaded ? std::move(loaded->model)
             : std::make_unique<LanguageModel>(config.model, examples.spec(),
                                               static_cast<uint64_t>(config.train.seed), device,
                                               weight_dtype(config.train.precision));

  if (examples.spec().vocab_size > model->vocab_size()) {
    throw DataError("the examples " + examples.origin + " have " +
                    std::to_string(examples.spec().vocab_size) + " tokens, the model " +
                    std::to_string(model->vocab_size()) + "; set data.path to the data that the model reads");
  }

  const auto said = [](const CheckResult& result) {
    log::debug(result.name + ": " + std::string(verdict_name(result.verdict)));
  };
  std::vector<CheckResult> results = {check_data(examples)};
  said(results.back());
  for (const auto& result :
       check_model(*model, first_examples(examples), static_cast<uint64_t>(config.train.seed),
                   compute_dtype(config.train.precision), said)) {
    results.push_back(result);
  }
  print_result(options.json ? as_json(results) : as_text(results));
  return static_cast<int>(all_as_expected(results) ? ExitStatus::ok : ExitStatus::runtime);
}

}  // namespace

void add_check(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("check", "Check a model, its gradients and its data without training");
  auto o = std::make_shared<Options>();
  command->add_option("run", o->run, "Run folder: its best checkpoint, else its last")
      ->type_name("RUN")
      ->check(kNamed);
  command->add_option("--config", o->configs, "YAML file instead of a run; several are layered in order")
      ->group("Config")
      ->type_name("FILE");
  command->add_option("--set", o->sets, "key=value on top of the files")
      ->group("Config")
      ->type_name("KEY=VALUE");
  command->add_option("--examples", o->examples, "Examples whose rules and answers are checked")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  command->add_option("--device", o->device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_flag("--json", o->json, "As JSON");
  command->footer(
      "Exit status 1 when a check fails that is not expected to.\n"
      "Example: hax check --config configs/quick/joint_recall_hax.yaml");
  command->callback([o, &action] { action = [o] { return run_check(*o); }; });
}

}  // namespace hax
