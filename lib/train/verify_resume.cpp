#include "lib/train/verify_resume.h"

#include <algorithm>

#include "lib/base/error.h"

namespace hax {
namespace {

struct Killed {};

}  // namespace

bool VerifiedResume::equal() const {
  return std::all_of(files.begin(), files.end(),
                     [](const ComparedFile& file) { return file.difference.empty(); });
}

std::vector<VerifiedResume> verify_resume(const Config& config, const ExampleSource& training,
                                          const ExampleSource& valid, at::Device device,
                                          const VerifyOptions& options) {
  if (options.at < 1 || options.at >= config.train.steps) {
    throw UsageError("--at " + std::to_string(options.at) + ": must be at least 1 and less than the " +
                     std::to_string(config.train.steps) + " steps of the run");
  }
  const auto asked = [&] { return options.should_stop && options.should_stop(); };
  // Trains the run in folder `name`, interrupted as interrupt(step) says.
  const auto run = [&](const std::string& name, const std::function<bool(int64_t)>& interrupt) {
    TrainHooks hooks;
    hooks.should_stop = [&](int64_t step) { return asked() || (interrupt && interrupt(step)); };
    hooks.progress = [&](const std::string& line) {
      if (options.progress) options.progress(name + ": " + line);
    };
    train(RunFolder::create_or_resume(options.folder + "/" + name, config), training, valid, device, hooks);
  };
  const auto kill = [&](int64_t step) -> bool { return step >= options.at ? throw Killed() : false; };

  std::vector<VerifiedResume> verified;
  run("whole", {});
  for (const std::string how : {"stopped", "killed"}) {
    if (asked()) return {};
    try {
      if (how == "stopped")
        run(how, [&](int64_t step) { return step >= options.at; });
      else
        run(how, kill);
    } catch (const Killed&) {
    }
    const std::string folder = options.folder + "/" + how;
    const RunFolder interrupted = RunFolder::open(folder);
    const int64_t from =
        interrupted.has_checkpoint() ? read_checkpoint_info(interrupted.last_checkpoint()).step : 0;
    run(how, {});
    if (asked()) return {};
    verified.push_back({how, from, compare_runs(options.folder + "/whole", folder)});
  }
  return verified;
}

}  // namespace hax
