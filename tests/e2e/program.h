// Runs the built `hax` and catches its exit status, stdout and stderr.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "lib/base/files.h"
#include "tests/support.h"

namespace hax::test {

struct ProgramResult {
  int status = -1;
  std::string out, err;
};

inline std::string shell_quoted(const std::string& word) {
  std::string quoted = "'";
  for (char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

inline ProgramResult run_hax(const std::vector<std::string>& arguments, const std::string& prefix = "") {
  const TemporaryFolder folder;
  std::string command = prefix + shell_quoted(HAX_BINARY);
  for (const auto& argument : arguments) (command += ' ') += shell_quoted(argument);
  command += " >" + shell_quoted(folder.path() + "/out") + " 2>" + shell_quoted(folder.path() + "/err");
  const int raw = std::system(command.c_str());
  ProgramResult result;
  result.status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
  result.out = read_file(folder.path() + "/out");
  result.err = read_file(folder.path() + "/err");
  return result;
}

}  // namespace hax::test
