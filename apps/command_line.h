// What every subcommand has in common on the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace hax {

struct Talk {
  bool quiet = false, verbose = false;
};

// -q and -v before the subcommand and behind it. `talk` must live as long as the command line.
void add_talk_flags(CLI::App& app, Talk& talk);

// "did you mean ...?" lines for the words of a refused command line that are flags or subcommands misspelt;
// empty when none comes near one.
std::string spelling_advice(const CLI::App& app);

}  // namespace hax
