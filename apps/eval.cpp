#include <filesystem>
#include <map>

#include "apps/commands.h"
#include "apps/signals.h"
#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/log.h"
#include "lib/base/parallel.h"
#include "lib/data/dataset.h"
#include "lib/eval/report.h"
#include "lib/train/run_folder.h"
#include "lib/train/train_step.h"
#include "lib/train/trainer.h"

namespace hax {
namespace {

struct Options {
  std::vector<std::string> runs, checkpoints, by;
  std::string data, split = "test", format = "text", out, device = "auto";
  int64_t batch_size = 256, threads = 0;
};

const std::map<std::string, TableFormat> kFormats = {{"text", TableFormat::text},
                                                     {"md", TableFormat::markdown},
                                                     {"csv", TableFormat::csv},
                                                     {"json", TableFormat::json}};
const std::map<std::string, DeviceKind> kDevices = {
    {"auto", DeviceKind::automatic}, {"cpu", DeviceKind::cpu}, {"cuda", DeviceKind::cuda}};

EvaluatedRun evaluate_checkpoint(const std::string& path, const std::string& label,
                                 const FileSource& examples, const std::string& data_name,
                                 const Manifest& manifest, const Options& options) {
  auto loaded = read_checkpoint(path, choose_device(kDevices.at(options.device)));
  check_fits(loaded.info, examples.spec(), data_name);
  if (examples.fingerprint() == loaded.info.data_fingerprint) {
    throw DataError(data_name + ": is the data that " + path + " was trained on; evaluate on the test split");
  }
  EvaluatedRun run;
  run.label = label;
  const at::ScalarType compute = compute_dtype(loaded.info.config.train.precision);
  run.evaluation =
      evaluate(*loaded.model, *loaded.draws, examples, 0, options.batch_size, compute, stop_requested);
  run.parameters = loaded.model->parameters().numel();
  run.state = measure_state(*loaded.model, *loaded.draws, examples, compute);
  run.info = std::move(loaded.info);
  return run;
}

int run_eval(const Options& options) {
  catch_signals();
  if (options.runs.empty() && options.checkpoints.empty()) {
    throw UsageError(
        "eval: nothing to evaluate; give --run RUN or --checkpoint FILE, each as often as needed");
  }
  if (!options.out.empty()) {
    const std::string fault = output_fault(options.out);
    if (!fault.empty()) throw UsageError("--out " + options.out + ": " + fault);
  }
  const int threads = options.threads > 0 ? static_cast<int>(options.threads) : hardware_threads();
  at::set_num_threads(threads);
  const Dataset dataset = Dataset::open(options.data, threads);
  const FileSource& examples = dataset.split(parse_split(options.split));
  const std::string data_name = options.data + " (" + options.split + ")";
  if (examples.size() == 0) throw DataError(data_name + ": the split is empty; choose another with --split");

  std::vector<EvaluatedRun> runs;
  auto add = [&](const std::string& path, const std::string& label) {
    runs.push_back(evaluate_checkpoint(path, label, examples, data_name, dataset.manifest(), options));
  };
  for (const auto& folder : options.runs) {
    const RunFolder run = RunFolder::open(folder);
    const bool validated = std::filesystem::exists(run.best_checkpoint());
    if (!validated && !run.has_checkpoint()) {
      throw DataError(folder + ": the run has no checkpoint yet; let `hax train --out " + folder + "` go on");
    }
    add(validated ? run.best_checkpoint() : run.last_checkpoint(),
        run.config().name.empty() ? folder : run.config().name);
  }
  for (const auto& path : options.checkpoints) add(path, path);
  if (stop_requested()) {
    log::warn("eval: stopped; nothing was written");
    return signal_exit_status();
  }

  const std::string table =
      accuracy_table(runs, examples.spec(), data_name, options.by).render(kFormats.at(options.format));
  if (options.out.empty()) {
    print_result(table);
  } else {
    write_file(options.out, table);
  }
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
  command->add_option("--by", o->by, "Slice by these columns, e.g. n_context,n_key")
      ->group("Table")
      ->delimiter(',');
  command->add_option("--format", o->format, "text, md, csv or json")
      ->group("Table")
      ->check(CLI::IsMember({"text", "md", "csv", "json"}))
      ->capture_default_str();
  command->add_option("--out", o->out, "Write the table there instead of to stdout")
      ->group("Table")
      ->type_name("FILE")
      ->check(kNamed);
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
