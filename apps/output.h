// Flags that commands which end in a table share: --format, --json and --out.
#pragma once

#include <memory>
#include <string>

#include "apps/commands.h"
#include "lib/eval/table.h"

namespace hax {

struct TableOutput {
  std::string format = "text", out;
  bool json = false;

  TableFormat chosen() const;
  // Before any work: throws UsageError when --out cannot be written.
  void check() const;
  void write(const Table& table) const;  // to --out, else to stdout
};

// `output` must live as long as the command.
void add_table_output(CLI::App* command, TableOutput& output);

}  // namespace hax
