#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "apps/commands.h"
#include "apps/output.h"
#include "apps/sources.h"
#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/log.h"
#include "lib/base/signals.h"
#include "lib/config/load.h"
#include "lib/model/device.h"
#include "lib/train/verify_resume.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> configs, sets;
  std::string folder;
  int64_t at = 0, steps = 0;
  bool json = false;
};

// The runs' folder: the user's, which must be new or empty, or one of the system's for temporary files.
std::string make_scratch(const std::string& asked) {
  if (!asked.empty()) {
    if (fs::exists(asked) && (!fs::is_directory(asked) || !fs::is_empty(asked)))
      throw UsageError("--keep " + asked + ": exists and is no empty folder; name a new one");
    make_directories(asked);
    return asked;
  }
  std::error_code fault;
  const fs::path place = fs::temp_directory_path(fault);
  if (fault) {
    const char* variable = ::getenv("TMPDIR");
    throw RuntimeError((variable != nullptr ? "TMPDIR=" + std::string(variable)
                                            : std::string("the folder for temporary files")) +
                       ": cannot be used: " + fault.message() +
                       "; set TMPDIR to a folder, or name one with --keep");
  }
  std::string pattern = (place / "hax-verify-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr)
    throw RuntimeError("cannot make the folder " + pattern + ": " + std::strerror(errno) +
                       "; name one with --keep");
  return pattern;
}

Table table_of(const std::vector<VerifiedResume>& verified, const Config& config, const Options& options) {
  Table table;
  table.caption = "Runs of " + std::to_string(config.train.steps) + " steps interrupted at step " +
                  std::to_string(options.at) + " against one that was not";
  table.columns = {"interrupted", "resumed from", "file", "bytes", "equal", "difference"};
  for (const auto& run : verified) {
    for (const auto& file : run.files) {
      table.rows.push_back({run.how, run.from, file.name, file.bytes, file.difference.empty() ? "yes" : "no",
                            file.difference.empty() ? Cell() : Cell(file.difference)});
    }
  }
  return table;
}

int run_verify_resume(const Options& options) {
  catch_signals();
  Config config = load_config(options.configs, options.sets);
  if (options.steps > 0) config.train.steps = options.steps;
  config.train.warmup_steps = std::min(config.train.warmup_steps, config.train.steps);
  const at::Device device = choose_device(config.train.device, "train.device");
  const TrainingSources sources = open_training_sources(config);
  const std::string folder = make_scratch(options.folder);
  const bool temporary = options.folder.empty();

  log::ProgressLine line;
  VerifyOptions verify;
  verify.folder = folder;
  verify.at = options.at;
  verify.should_stop = stop_requested;
  verify.progress = [&](const std::string& text) { line.update(text); };
  std::vector<VerifiedResume> verified;
  try {
    verified = verify_resume(config, *sources.train, *sources.valid, device, verify);
  } catch (...) {
    if (temporary) fs::remove_all(folder);
    throw;
  }
  line.finish();
  const bool equal =
      std::all_of(verified.begin(), verified.end(), [](const auto& run) { return run.equal(); });
  if (temporary && (equal || verified.empty())) fs::remove_all(folder);
  if (verified.empty()) {
    log::warn("verify-resume: stopped; nothing was shown");
    return signal_exit_status();
  }
  print_result(
      table_of(verified, config, options).render(options.json ? TableFormat::json : TableFormat::text));
  if (!equal) {
    log::error("an interrupted run differs from one that was not interrupted; the runs are in " + folder);
    return static_cast<int>(ExitStatus::runtime);
  }
  return 0;
}

}  // namespace

void add_verify_resume(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand(
      "verify-resume", "Show on this machine that an interrupted run ends with the bytes of an unbroken one");
  auto o = std::make_shared<Options>();
  add_config_options(*command, o->configs, o->sets, "train.device=cuda")->required();
  command->add_option("--at", o->at, "Step at which the runs are interrupted")
      ->group("Trial")
      ->required()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 32));
  command->add_option("--steps", o->steps, "Steps of each run, in place of train.steps")
      ->group("Trial")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 32));
  command
      ->add_option("--keep", o->folder, "Train there and leave the run folders; default: a temporary folder")
      ->group("Output")
      ->type_name("DIR")
      ->check(kNamed);
  command->add_flag("--json", o->json, "As JSON")->group("Output");
  command->footer(
      "Trains three times: without a break; stopped with the state saved, and resumed; killed with nothing\n"
      "saved, and resumed from the last checkpoint. Exit status 1 when some byte differs.\n"
      "Example: hax verify-resume --config configs/quick/joint_recall_hax.yaml --set data.path=runs/data "
      "--at 30 --steps 60");
  command->callback([o, &action] { action = [o] { return run_verify_resume(*o); }; });
}

}  // namespace hax
