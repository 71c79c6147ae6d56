#include <sstream>

#include "apps/commands.h"
#include "data_gen/generate.h"
#include "hax_version.h"
#include "lib/base/log.h"
#include "lib/base/signals.h"
#include "lib/config/load.h"

namespace hax {
namespace {

struct Options {
  std::vector<std::string> configs, sets;
  std::string out;
  int threads = 0;
};

int run_gen_data(const Options& options) {
  catch_signals();
  const Config config = load_config(options.configs, options.sets);
  log::ProgressLine line;
  GenerateOptions generate;
  generate.out = options.out;
  generate.threads = options.threads;
  generate.program_version = HAX_VERSION;
  generate.should_stop = stop_requested;
  generate.progress = [&](int64_t done, int64_t total) {
    line.update(std::to_string(done) + " of " + std::to_string(total) + " examples");
  };
  const GenerateReport report = generate_dataset(config.task, config.data, generate);
  line.finish();
  if (report.stopped) {
    log::warn(options.out + ": stopped; no dataset was written");
    return signal_exit_status();
  }
  std::ostringstream text;
  text << options.out << ": " << report.examples << " examples, " << report.tokens << " tokens, "
       << report.bytes << " bytes, fingerprint " << report.fingerprint;
  log::info(text.str());
  return 0;
}

}  // namespace

void add_gen_data(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("gen-data", "Generate a dataset: train, valid and test splits of a task");
  auto o = std::make_shared<Options>();
  add_config_options(*command, o->configs, o->sets, "data.train_examples=50000",
                     "YAML file with `task` and `data`; several are layered in order");
  command->add_option("--out", o->out, "Dataset folder, new or empty")
      ->group("Output")
      ->type_name("DIR")
      ->required()
      ->check(kNamed);
  command->add_option("--threads", o->threads, "CPU threads; 0: all. The bytes do not depend on it")
      ->group("Machine")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->footer("Example: hax gen-data --config configs/quick/data_joint_recall_4x4.yaml --out runs/data");
  command->callback([o, &action] { action = [o] { return run_gen_data(*o); }; });
}

}  // namespace hax
