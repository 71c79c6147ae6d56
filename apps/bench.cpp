#include <cmath>
#include <filesystem>
#include <sstream>

#include "apps/bench.h"
#include "data_gen/bench.h"
#include "data_gen/registry.h"
#include "data_gen/stream.h"
#include "lib/base/error.h"
#include "lib/bench/step.h"
#include "lib/config/load.h"
#include "lib/config/names.h"
#include "lib/eval/report.h"
#include "lib/model/device.h"

namespace hax {
namespace {

struct Options {
  std::vector<std::string> configs, sets;
  std::string device, folder, trace;
  int threads = 0;
  int64_t steps = 50, warmup = 10;
  bool json = false, profile = false;
};

// What is timed without a file, and what --set changes then: Mamba2 + HAX on 4 x 4 joint recall, batch 32 of
// 74 tokens, the step that scripts/quickstart takes most.
const std::vector<std::string> kDefaultStep = {"task.joint_recall.n_context_min=4",
                                               "task.joint_recall.n_context_max=4",
                                               "task.joint_recall.n_key_min=4",
                                               "task.joint_recall.n_key_max=4",
                                               "model.sparse.patterns=[lsh, key_selection]",
                                               "model.sparse.k=32",
                                               "model.sparse.hash_bits=4",
                                               "train.batch_size=32"};

void check_trace(const std::string& path) {
  namespace fs = std::filesystem;
  if (path.empty()) return;
  if (fs::exists(fs::symlink_status(path)))
    throw UsageError("--trace " + path + ": exists already; name another file, or remove it");
  const fs::path folder = fs::absolute(path).parent_path();
  if (!fs::is_directory(folder))
    throw UsageError("--trace " + path + ": there is no folder " + folder.string() + "; make it first");
}

int run_profile(const Options& o, const Config& config, const ExampleSource& source, at::Device device) {
  if (!device.is_cuda())
    throw UsageError("--profile: lists GPU kernels; add --device cuda on a machine with a GPU");
  const auto kernels = profile_step(config, source, device, o.warmup, o.steps, o.trace);
  double total = 0.0;
  for (const KernelTime& kernel : kernels) total += kernel.microseconds;
  Table table;
  table.caption =
      "Kernels of a training step: " + (config.name.empty() ? pattern_names(config.model) : config.name);
  table.columns = {"us a step", "share %", "calls a step", "us a call", "kernel"};
  const auto steps = static_cast<double>(o.steps);
  for (const KernelTime& kernel : kernels) {
    table.rows.push_back({Number{kernel.microseconds / steps, 2},
                          Number{100.0 * kernel.microseconds / total, 1},
                          Number{static_cast<double>(kernel.calls) / steps, 1},
                          Number{kernel.microseconds / static_cast<double>(kernel.calls), 2}, kernel.name});
  }
  std::ostringstream sum;
  sum << "All kernels and copies together: " << std::llround(total / steps) << " us a step, over " << o.steps
      << " steps.";
  table.notes = {sum.str()};
  print_result(table.render(o.json ? TableFormat::json : TableFormat::text));
  return 0;
}

int run_step(const Options& o) {
  check_trace(o.trace);
  std::vector<std::string> sets = o.configs.empty() ? kDefaultStep : std::vector<std::string>();
  sets.insert(sets.end(), o.sets.begin(), o.sets.end());
  Config config = load_config(o.configs, sets);
  if (!o.device.empty()) config.train.device = *value_of<DeviceKind>(o.device);
  const at::Device device =
      choose_device(config.train.device, o.device.empty() ? "train.device" : "--device");
  const TaskStream source(make_task(config.task), config.data.seed, ExampleSet(), "");
  if (o.profile) return run_profile(o, config, source, device);
  const StepTimes times = bench_step(config, source, device, o.warmup, o.steps);

  Table table;
  table.caption = "Training step" + (config.name.empty() ? "" : ": " + config.name);
  table.columns = {"device",    "threads", "mixer",  "patterns", "batch",   "tokens",  "parameters",
                   "median ms", "p10 ms",  "p90 ms", "tokens/s", "peak MB", "GEMM ms", "x GEMM"};
  const double median = quantile(times.milliseconds, 0.5);
  table.rows = {{device.str(), int64_t{at::get_num_threads()}, mixer_names(config.model),
                 pattern_names(config.model), config.train.batch_size, Number{times.tokens_per_step, 0},
                 times.parameters, Number{median, 2}, Number{quantile(times.milliseconds, 0.1), 2},
                 Number{quantile(times.milliseconds, 0.9), 2},
                 Number{1e3 * times.tokens_per_step / median, 0},
                 Number{static_cast<double>(times.peak_bytes) / (1024.0 * 1024.0), 1},
                 Number{times.products.milliseconds, 2}, Number{median / times.products.milliseconds, 2}}};
  table.notes = {"A step is batch, forward, backward, ranking loss, AdamW and metrics; " +
                     std::to_string(o.steps) + " steps after " + std::to_string(o.warmup) + " of warm-up.",
                 "GEMM ms: the step's " + std::to_string(times.products.count) +
                     " matrix products alone, at the same shapes and threads; x GEMM: the step's median over "
                     "that. peak MB: tensors, the model's included."};
  print_result(table.render(o.json ? TableFormat::json : TableFormat::text));
  return 0;
}

// The paper's joint-recall set: 1,440,000 + 14,400 + 14,400 examples of 5..16 contexts and keys.
Config paper_data() {
  Config config;
  config.data.train_examples = 1440000;
  config.data.valid_examples = config.data.test_examples = 14400;
  return config;
}

int run_data(const Options& o) {
  const Config config = o.configs.empty() && o.sets.empty() ? paper_data() : load_config(o.configs, o.sets);
  std::ostringstream out;
  bench_generation(config.task, config.data, o.folder, o.threads, out);
  print_result(out.str());
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("bench", "Measure this machine");
  command->require_subcommand(1);
  command->footer("Example: hax bench step --device cpu");
  auto o = std::make_shared<Options>();
  auto* step = command->add_subcommand(
      "step", "Whole training steps of a config (without --config: Mamba2 + HAX, batch 32 x 74)");
  add_config_options(*step, o->configs, o->sets);
  step->add_option("--device", o->device, "cpu or cuda instead of train.device")
      ->group("Machine")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  step->add_option("--steps", o->steps, "Measured steps")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  step->add_option("--warmup", o->warmup, "Steps before them")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
  auto* profile =
      step->add_flag("--profile", o->profile, "List the GPU kernels of a step with their times instead");
  step->add_option("--trace", o->trace, "Write the profiled steps there as a Chrome trace, a new file")
      ->type_name("FILE")
      ->check(kNamed)
      ->needs(profile);
  step->add_flag("--json", o->json, "As JSON");
  step->footer(
      "Example: hax bench step --device cpu --set model.mixer=[mamba] --set model.sparse.patterns=[]");
  step->callback([o, &action] { action = [o] { return run_step(*o); }; });

  add_bench_ops(*command, action);

  auto* data = command->add_subcommand(
      "data", "Dataset generation, writing and reading (default: the paper's joint-recall set)");
  add_config_options(*data, o->configs, o->sets);
  data->add_option("--folder", o->folder, "Scratch folder, new or empty; removed afterwards")
      ->type_name("DIR")
      ->required()
      ->check(kNamed);
  data->add_option("--threads", o->threads, "CPU threads; 0: all")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  data->footer("Example: hax bench data --folder scratch");
  data->callback([o, &action] { action = [o] { return run_data(*o); }; });
}

}  // namespace hax
