#include "apps/commands.h"
#include "apps/evaluate_run.h"
#include "apps/output.h"
#include "data_gen/registry.h"
#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/base/parallel.h"
#include "lib/base/signals.h"
#include "lib/config/names.h"
#include "lib/model/device.h"
#include "lib/train/run_folder.h"

namespace hax {
namespace {

struct Options {
  std::vector<std::string> runs, checkpoints, by;
  std::string data, split = "test", device = "auto";
  int64_t batch_size = 256, threads = 0;
  bool errors = false;
  TableOutput output;
};

int run_eval(const Options& options) {
  catch_signals();
  if (options.runs.empty() && options.checkpoints.empty()) {
    throw UsageError(
        "eval: nothing to evaluate; give --run RUN or --checkpoint FILE, each as often as needed");
  }
  options.output.check();
  const int threads = options.threads > 0 ? static_cast<int>(options.threads) : hardware_threads();
  at::set_num_threads(threads);
  const at::Device device = choose_device(value_of<DeviceKind>(options.device).value(), "--device");
  const EvaluationSplit split(options.data, options.split, threads);

  // Refused before any model is evaluated.
  const Slicing slicing(options.by, split.examples().spec(), split.name);
  std::unique_ptr<Task> task;
  if (options.errors || slicing.by_distance()) task = make_task(split.dataset.manifest(), options.data);

  std::vector<EvaluatedRun> runs;
  auto add = [&](const std::string& path, const std::string& label) {
    runs.push_back(evaluate_checkpoint(path, label, split, device, options.batch_size, task.get()));
  };
  for (const auto& folder : options.runs) {
    const RunFolder run = RunFolder::open(folder);
    add(checkpoint_of(run), run.config().name.empty() ? folder : run.config().name);
  }
  for (const auto& path : options.checkpoints) add(path, path);
  if (stop_requested()) {
    log::warn("eval: stopped; nothing was written");
    return signal_exit_status();
  }

  const auto table = options.errors ? error_table : accuracy_table;
  options.output.write(table(runs, split.examples().spec(), split.name, options.by));
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("eval", "Evaluate runs or checkpoints on a dataset and write a table");
  auto o = std::make_shared<Options>();
  command->add_option("--run", o->runs, "Run folder: its best checkpoint, else its last; may be given again")
      ->group("Models")
      ->type_name("RUN")
      ->check(kNamed);
  command->add_option("--checkpoint", o->checkpoints, "Checkpoint file; may be given again")
      ->group("Models")
      ->type_name("FILE")
      ->check(kNamed);
  command->add_option("--data", o->data, "Dataset folder")
      ->group("Data")
      ->type_name("DIR")
      ->required()
      ->check(kNamed);
  command->add_option("--split", o->split, "train, valid or test")
      ->group("Data")
      ->check(CLI::IsMember({"train", "valid", "test"}))
      ->capture_default_str();
  command
      ->add_option("--by", o->by, "Slice by these columns of the data, e.g. n_context,n_key, and by distance")
      ->group("Table")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_flag("--errors", o->errors, "Show what the wrong answers were instead")->group("Table");
  add_table_output(command, o->output);
  command->add_option("--device", o->device, "auto, cpu or cuda")
      ->group("Machine")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--batch-size", o->batch_size, "Examples a forward pass")
      ->group("Machine")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--threads", o->threads, "CPU threads; 0: all")
      ->group("Machine")
      ->check(CLI::Range(int64_t{0}, int64_t{4096}))
      ->capture_default_str();
  command->footer("Example: hax eval --run runs/hax-2 --data runs/data --by n_context,n_key --format md");
  command->callback([o, &action] { action = [o] { return run_eval(*o); }; });
}

}  // namespace hax
