#include <chrono>
#include <filesystem>
#include <limits>
#include <sstream>

#include "apps/commands.h"
#include "apps/sources.h"
#include "lib/base/duration.h"
#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/base/signals.h"
#include "lib/config/load.h"
#include "lib/model/device.h"
#include "lib/train/trainer.h"

namespace hax {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::vector<std::string> configs, sets;
  std::string out, max_time;
};

// Neither a config to begin with nor a run to go on with.
[[noreturn]] void refuse_to_begin(const std::string& out) {
  if (std::filesystem::is_directory(out + "/checkpoints"))
    RunFolder::open(out);  // says what is missing there
  throw UsageError("--out " + out + ": there is no run to go on with (" +
                   (std::filesystem::exists(out) ? "no config.yaml in it" : "no such folder") +
                   "); begin one with --config FILE, or name the folder of one that has begun");
}

int run_train(const Options& options) {
  const auto begin = Clock::now();
  const double most_seconds =
      options.max_time.empty() ? std::numeric_limits<double>::infinity() : *parse_duration(options.max_time);
  catch_signals();
  // A run knows its own config: its folder is enough to go on with it, and --set changes what may change.
  const std::string own = options.out + "/config.yaml";
  const bool goes_on = options.configs.empty() && std::filesystem::exists(own);
  Config config =
      goes_on ? RunFolder::open(options.out).config() : load_config(options.configs, options.sets);
  if (goes_on && !options.sets.empty()) config = load_config({own}, options.sets);
  if (!goes_on && options.configs.empty() && config.data.path.empty()) refuse_to_begin(options.out);
  const at::Device device = choose_device(config.train.device, "train.device");
  const TrainingSources sources = open_training_sources(config);
  const RunFolder run = RunFolder::create_or_resume(options.out, config);
  if (const auto result = run.result(); result && result->status != "diverged") {
    log::info(options.out + ": already " + result->status + " at step " + std::to_string(result->step));
    if (!run.has_checkpoint() && !std::filesystem::exists(run.best_checkpoint())) {
      log::warn(options.out + ": its checkpoints are gone; to train it anew remove " + options.out +
                "/result.json and give the same command again");
    } else if (result->best_accuracy >= 0.0 && !std::filesystem::exists(run.best_checkpoint())) {
      log::warn(run.best_checkpoint() + ": is missing; `hax eval --run " + options.out +
                "` says what can be done");
    }
    return 0;
  }
  log::ProgressLine line;
  TrainHooks hooks;
  hooks.should_stop = [&](int64_t) {
    return stop_requested() || std::chrono::duration<double>(Clock::now() - begin).count() >= most_seconds;
  };
  hooks.progress = [&](const std::string& text) { line.update(text); };
  const TrainOutcome outcome = train(run, *sources.train, *sources.valid, device, hooks);
  line.finish();

  std::ostringstream text;
  text.precision(4);
  text << options.out << ": " << outcome.result.status << " at step " << outcome.result.step
       << ", best validation accuracy " << 100.0 * outcome.result.best_accuracy << " % at step "
       << outcome.result.best_step << ", " << log::format_seconds(outcome.result.seconds);
  switch (outcome.end) {
    case TrainEnd::finished:
    case TrainEnd::target_reached:
      log::info(text.str());
      return 0;
    case TrainEnd::stopped:
      log::warn(options.out + ": stopped " + (stop_requested() ? "" : "by --max-time ") + "at step " +
                std::to_string(outcome.result.step) +
                " with the state saved; the same command goes on from there");
      return stop_requested() ? signal_exit_status() : static_cast<int>(ExitStatus::out_of_time);
    case TrainEnd::diverged:
      throw DivergedError(options.out + ": diverged " + outcome.result.message);
  }
  return 0;
}

}  // namespace

void add_train(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("train", "Train a model; resumes a run that was interrupted");
  auto options = std::make_shared<Options>();
  add_config_options(*command, options->configs, options->sets, "train.lr=1e-3");
  command
      ->add_option(
          "--out", options->out,
          "Run folder: config, metrics, checkpoints, result; of a run that has begun it is enough by itself")
      ->group("Output")
      ->type_name("RUN")
      ->required()
      ->check(kNamed);
  command
      ->add_option(
          "--max-time", options->max_time,
          "Save and stop with status 5 after this time: 90s, 55m, 3h55m, 1d12h, 1:30:00 or 1-12:00:00; "
          "leave room for one step and one save")
      ->group("Output")
      ->type_name("TIME")
      ->check([](const std::string& text) {
        return parse_duration(text)
                   ? std::string()
                   : "wanted a time such as 90s, 55m, 3h55m, 1d12h, 1:30:00 or 1-12:00:00, got '" + text +
                         "'";
      });
  command->footer(
      "Example: hax train --config configs/quick/joint_recall_hax.yaml --set data.path=runs/data --set "
      "train.seed=2 "
      "--out runs/hax-2");
  command->callback([options, &action] { action = [options] { return run_train(*options); }; });
}

}  // namespace hax
