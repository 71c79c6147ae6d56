#include <algorithm>
#include <exception>
#include <filesystem>
#include <map>

#include "apps/commands.h"
#include "apps/evaluate_run.h"
#include "apps/output.h"
#include "data_gen/registry.h"
#include "data_gen/stream.h"
#include "lib/base/error.h"
#include "lib/base/file_fault.h"
#include "lib/base/files.h"
#include "lib/base/log.h"
#include "lib/base/parallel.h"
#include "lib/base/signals.h"
#include "lib/config/names.h"
#include "lib/config/write.h"
#include "lib/eval/run_table.h"
#include "lib/model/device.h"
#include "lib/train/collect_runs.h"
#include "lib/train/stored_evaluation.h"
#include "lib/train/train_step.h"

namespace hax {
namespace {

struct Options {
  std::vector<std::string> paths, rows = {"name", "mode"}, columns, over;
  std::string best_of, data, split = "test", device = "auto";
  bool details = false, bound = false, unfinished = false;
  int64_t threads = 0;
  TableOutput output;
};

// Dotted keys, each in one place of the table alone.
Grouping grouping_of(const Options& o) {
  Grouping g;
  std::vector<std::string> used;
  const auto resolve = [&](const std::string& name, const char* flag) {
    std::string key = full_key(name, flag);
    if (std::find(used.begin(), used.end(), key) != used.end())
      throw UsageError(std::string(flag) + " " + name + ": " + key + " has a place in the table already");
    used.push_back(key);
    return key;
  };
  for (const auto& name : o.rows) g.rows.push_back(resolve(name, "--rows"));
  for (const auto& name : o.columns) g.columns.push_back(resolve(name, "--columns"));
  if (!o.best_of.empty()) g.best_of = resolve(o.best_of, "--best-of");
  if (o.over.empty()) {
    // Seeds that are rows or columns of their own leave single runs.
    std::erase_if(g.over,
                  [&](const auto& key) { return std::find(used.begin(), used.end(), key) != used.end(); });
  } else {
    g.over.clear();
    for (const auto& name : o.over) g.over.push_back(resolve(name, "--over"));
  }
  g.count_unfinished = o.unfinished;
  return g;
}

// The best checkpoint's evaluation on the split: from the run folder, or measured and kept there.
StoredEvaluation evaluation_on(const RunRecord& record, const EvaluationSplit& split, at::Device device,
                               log::ProgressLine& line) {
  const RunFolder run = RunFolder::open(record.path);
  const std::string path = checkpoint_of(run);
  const std::string checkpoint = checksum(as_bytes(read_file(path)));
  const std::string fingerprint = split.examples().fingerprint();
  if (const auto stored = read_evaluation(run, fingerprint, checkpoint)) return *stored;
  line.update("evaluating " + record.path);
  const EvaluatedRun result =
      evaluate_checkpoint(path, record.path, split, device, record.config.train.eval_batch_size);
  const MeanAndError mean = accuracy(result.evaluation);
  const StoredEvaluation fresh = {split.name,
                                  fingerprint,
                                  checkpoint,
                                  result.info.step,
                                  mean.mean,
                                  mean.standard_error,
                                  result.evaluation.loss,
                                  mean.n,
                                  result.seen};
  if (!stop_requested()) write_evaluation(run, fresh);
  return fresh;
}

// One example of each size of a run's task.
class ExampleOfEachSize : public ExampleSource {
 public:
  explicit ExampleOfEachSize(const Config& config)
      : task_(make_task(config.task)), stream_(task_, config.data.seed, ExampleSet(), "") {}
  const DataSpec& spec() const override { return stream_.spec(); }
  int64_t size() const override { return task_->sizes(); }
  void append_example(int64_t index, Batch& batch) const override { stream_.append_example(index, batch); }
  std::string fingerprint() const override { return stream_.fingerprint(); }

 private:
  std::shared_ptr<const Task> task_;
  TaskStream stream_;
};

struct Description {
  int64_t parameters;
  std::optional<MeasuredState> state;
};

Description describe(const RunRecord& run) {
  const auto loaded = read_checkpoint(any_checkpoint_of(RunFolder::open(run.path)), at::kCPU);
  return {loaded.model->parameters().numel(),
          measure_state(*loaded.model, *loaded.draws, ExampleOfEachSize(run.config),
                        compute_dtype(run.config.train.precision))};
}

// Parameters and state of the runs that have a checkpoint; those of one architecture, task and precision
// share them.
void describe_models(std::vector<RunRecord>& runs) {
  std::map<std::string, Description> known;
  for (auto& run : runs) {
    if (run.data_fingerprint.empty()) continue;
    Config architecture;
    architecture.task = run.config.task;
    architecture.model = run.config.model;
    architecture.train.precision = run.config.train.precision;
    const std::string key = to_yaml(architecture);
    auto found = known.find(key);
    if (found == known.end()) found = known.emplace(key, describe(run)).first;
    run.parameters = found->second.parameters;
    run.state = found->second.state;
  }
}

// A run that was named must be sound. One that was found in a folder is left out where it is not, and the
// table says so.
std::vector<RunRecord> read_runs(const Options& o, RunTableOptions& options) {
  std::vector<RunRecord> runs;
  std::exception_ptr first_fault;
  const auto leave_out = [&](const std::string& folder, const std::string& fault) {
    if (std::find(o.paths.begin(), o.paths.end(), folder) != o.paths.end()) throw;
    if (!first_fault) first_fault = std::current_exception();
    log::warn(fault + "\n" + folder + " is left out of the table");
    options.left_out.push_back(folder);
  };
  for (const auto& folder : find_runs(o.paths, &options.left_out)) {
    try {
      RunRecord run = read_run(folder);
      const bool evaluated = !o.data.empty() && counts(run, options.grouping) && run.valid_accuracy >= 0.0;
      if (evaluated) checkpoint_of(RunFolder::open(folder));
      runs.push_back(std::move(run));
    } catch (const Error& e) {
      leave_out(folder, e.what());
    } catch (const std::filesystem::filesystem_error& e) {
      leave_out(folder, fault_text(e));
    }
  }
  if (runs.empty() && first_fault) std::rethrow_exception(first_fault);
  return runs;
}

int run_table(const Options& o) {
  catch_signals();
  o.output.check();
  RunTableOptions options{grouping_of(o), "", o.details, o.bound, 0, {}};
  const TableFormat format = o.output.chosen();
  const bool for_programs = format == TableFormat::csv || format == TableFormat::json;
  options.details = options.details || for_programs;
  const bool pivot = !options.grouping.columns.empty() && !for_programs;
  const auto build = [&](const std::vector<RunRecord>& runs) {
    return pivot ? run_pivot(runs, options) : run_list(runs, options);
  };

  std::vector<RunRecord> runs = read_runs(o, options);
  // What cannot become a table is refused before any model is evaluated.
  build(runs);

  const int threads = o.threads > 0 ? static_cast<int>(o.threads) : hardware_threads();
  at::set_num_threads(threads);
  log::ProgressLine line;
  if (!o.data.empty()) {
    const at::Device device = choose_device(value_of<DeviceKind>(o.device).value(), "--device");
    const EvaluationSplit split(o.data, o.split, threads);
    for (auto& run : runs) {
      if (!counts(run, options.grouping) || run.valid_accuracy < 0.0) continue;
      const StoredEvaluation evaluation = evaluation_on(run, split, device, line);
      run.accuracy = evaluation.accuracy;
      run.seen = evaluation.seen.value_or(0);
      if (stop_requested()) {
        log::warn("table: stopped; evaluations that were done are kept");
        return signal_exit_status();
      }
    }
    options.data_name = split.name;
    options.data_vocab_size = split.examples().spec().vocab_size;
    options.grouping.evaluated = true;
  }
  line.finish();
  if (options.details || options.bound) describe_models(runs);
  o.output.write(build(runs));
  return 0;
}

}  // namespace

void add_table(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand(
      "table", "Collect runs into a table: means over seeds with their intervals, by any config key");
  auto o = std::make_shared<Options>();
  command->add_option("runs", o->paths, "Run folders, or folders that are searched for them")
      ->type_name("RUN")
      ->required()
      ->check(kNamed);
  command->add_option("--rows", o->rows, "Config keys (dotted, or a unique last part) that make the rows")
      ->group("Table")
      ->type_name("KEY")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  command->add_option("--columns", o->columns, "Config keys that make the columns; none: a list")
      ->group("Table")
      ->type_name("KEY")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--best-of", o->best_of, "For each cell show the value of this key that validates best")
      ->group("Table")
      ->type_name("KEY");
  command->add_option("--over", o->over, "Keys that a mean runs over; default: train.seed")
      ->group("Table")
      ->type_name("KEY")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_flag("--unfinished", o->unfinished, "Count runs that have not ended, with their best so far")
      ->group("Table");
  command
      ->add_flag("--details", o->details,
                 "Seeds, parameters, state, steps, tokens and time; CSV and JSON always have them")
      ->group("Table");
  command->add_flag("--bound", o->bound, "What the state's bits allow on joint recall")->group("Table");
  add_table_output(command, o->output);
  auto* data =
      command
          ->add_option(
              "--data", o->data,
              "Evaluate the best checkpoints on this dataset folder (once: the runs keep the results)")
          ->group("Data")
          ->type_name("DIR")
          ->check(kNamed);
  command->add_option("--split", o->split, "Of --data: train, valid or test")
      ->group("Data")
      ->check(CLI::IsMember({"train", "valid", "test"}))
      ->capture_default_str()
      ->needs(data);
  command->add_option("--device", o->device, "auto, cpu or cuda")
      ->group("Machine")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--threads", o->threads, "CPU threads; 0: all")
      ->group("Machine")
      ->check(CLI::Range(int64_t{0}, int64_t{4096}))
      ->capture_default_str();
  command->footer("Example: hax table runs/sweep --rows d_state --columns mode --best-of lr --format md");
  command->callback([o, &action] { action = [o] { return run_table(*o); }; });
}

}  // namespace hax
