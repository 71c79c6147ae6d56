// `hax`: reads the command line, runs one subcommand, turns errors into messages and exit statuses.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <new>
#include <optional>
#include <sstream>

#include "apps/command_line.h"
#include "apps/commands.h"
#include "apps/version.h"
#include "lib/base/error.h"
#include "lib/base/file_fault.h"
#include "lib/base/log.h"
#include "lib/base/signals.h"
#include "lib/ops/torch.h"

namespace hax {

void print_result(const std::string& text) {
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written && errno != EPIPE)
    throw RuntimeError(std::string("stdout: cannot write: ") + std::strerror(errno));
}

}  // namespace hax

// NOLINTNEXTLINE(bugprone-exception-escape): what throws before parsing is a fault in the table of commands.
int main(int argc, char** argv) {
  using namespace hax;
  open_standard_streams();
  ignore_write_signals();
  CLI::App app{"hax: synthetic recall data, small sequence models, accuracy tables"};
  app.require_subcommand(0, 1);
  app.footer(
      "Exit status: 0 done, 1 runtime error, 2 usage or config, 3 bad data or checkpoint, 4 diverged,\n"
      "5 stopped by --max-time, 130/143/138/129 by SIGINT/SIGTERM/SIGUSR1/SIGHUP, with the state saved.\n"
      "Example: hax gen-data --config configs/quick/data_joint_recall_4x4.yaml --out runs/data");
  bool version = false, json = false;
  Talk talk;
  auto* version_flag =
      app.add_flag("--version", version, "Print version, commit, LibTorch, CUDA and devices");
  app.add_flag("--json", json, "With --version: as JSON")->needs(version_flag);

  Action action;
  add_gen_data(app, action);
  add_import_text(app, action);
  add_export_text(app, action);
  add_train(app, action);
  add_eval(app, action);
  add_table(app, action);
  add_check(app, action);
  add_config(app, action);
  add_inspect(app, action);
  add_bench(app, action);
  add_convert(app, action);
  add_verify_resume(app, action);
  add_talk_flags(app, talk);

  std::optional<std::string> help;
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    std::ostringstream text;
    app.exit(e, text, text);
    help = text.str();
  } catch (const CLI::ParseError& e) {
    app.exit(e, std::cerr, std::cerr);
    std::cerr << spelling_advice(app);
    return static_cast<int>(ExitStatus::usage);
  }

  log::set_level(talk.quiet ? log::Level::quiet : talk.verbose ? log::Level::verbose : log::Level::normal);
  try {
    if (talk.quiet && talk.verbose) throw UsageError("--quiet and --verbose: give one of them");
    if (help) {
      print_result(*help);
      return 0;
    }
    if (version) {
      print_result(version_report(json));
      return 0;
    }
    if (!action) {
      std::fputs(app.help().c_str(), stderr);
      return static_cast<int>(ExitStatus::usage);
    }
    return action();
  } catch (const Error& e) {
    log::error(e.what());
    return static_cast<int>(e.status());
  } catch (const std::bad_alloc&) {
    log::error("out of memory; a smaller model or batch (train.batch_size, --batch-size) needs less");
    return static_cast<int>(ExitStatus::runtime);
  } catch (const c10::Error& e) {
    log::error(std::string("LibTorch: ") + e.what_without_backtrace() +
               "; if memory ran out, a smaller model or batch (train.batch_size, --batch-size) needs less");
    return static_cast<int>(ExitStatus::runtime);
  } catch (const std::filesystem::filesystem_error& e) {
    log::error(fault_text(e));
    return static_cast<int>(ExitStatus::runtime);
  } catch (const std::exception& e) {
    log::error(e.what());
    return static_cast<int>(ExitStatus::runtime);
  }
}
