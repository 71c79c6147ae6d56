// The subcommands of `hax`. Each adds itself to the command line and leaves an action behind, which main
// runs under one handler for errors and exit statuses.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace hax {

using Action = std::function<int()>;

// Refuses an empty path, which an unset shell variable gives.
inline const CLI::Validator kNamed(
    [](const std::string& text) {
      return text.empty() ? std::string("needs a path, got an empty text") : std::string();
    },
    "", "named");

// --config and --set, in the group "Config" of the help. `example` is one of --set; returns --config, which
// may be made required.
CLI::Option* add_config_options(CLI::App& command, std::vector<std::string>& configs,
                                std::vector<std::string>& sets, const std::string& example = "",
                                const std::string& about = "YAML file; several are layered in order");

void add_gen_data(CLI::App& app, Action& action);
void add_import_text(CLI::App& app, Action& action);
void add_export_text(CLI::App& app, Action& action);
void add_train(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_table(CLI::App& app, Action& action);
void add_check(CLI::App& app, Action& action);
void add_config(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_convert(CLI::App& app, Action& action);
void add_verify_resume(CLI::App& app, Action& action);

// Writes results to stdout and throws RuntimeError when that fails (a full disk; a closed pipe is no error).
void print_result(const std::string& text);

}  // namespace hax
