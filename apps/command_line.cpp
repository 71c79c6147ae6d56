#include "apps/command_line.h"

#include <vector>

#include "lib/base/nearest.h"

namespace hax {
namespace {

// The command line's subcommands that were recognised, outermost first.
std::vector<const CLI::App*> chain_of(const CLI::App& app) {
  std::vector<const CLI::App*> chain = {&app};
  while (!chain.back()->get_subcommands().empty()) chain.push_back(chain.back()->get_subcommands().front());
  return chain;
}

}  // namespace

void add_talk_flags(CLI::App& app, Talk& talk) {
  app.add_flag("-q,--quiet", talk.quiet, "Say nothing on stderr but errors")->group("Messages");
  app.add_flag("-v,--verbose", talk.verbose, "Say more on stderr")->group("Messages");
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; }))
    add_talk_flags(*command, talk);
}

std::string spelling_advice(const CLI::App& app) {
  const std::vector<const CLI::App*> chain = chain_of(app);
  std::vector<std::string> flags, commands;
  for (const CLI::Option* option : chain.back()->get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  for (const CLI::App* command : chain.back()->get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(command->get_name());
  std::string text;
  for (const std::string& word : app.remaining(/*recurse=*/true)) {
    const std::string name = word.substr(0, word.find('='));
    const auto near = nearest_names(name, name.starts_with("-") ? flags : commands, 1);
    if (!near.empty()) text += name + ": did you mean " + near.front() + "?\n";
  }
  return text;
}

}  // namespace hax
