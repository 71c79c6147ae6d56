#include "apps/output.h"

#include "lib/base/error.h"
#include "lib/base/files.h"

namespace hax {

TableFormat TableOutput::chosen() const { return json ? TableFormat::json : table_format(format).value(); }

void TableOutput::check() const {
  if (out.empty()) return;
  const std::string fault = output_fault(out);
  if (!fault.empty()) throw UsageError("--out " + out + ": " + fault);
}

void TableOutput::write(const Table& table) const {
  const std::string text = table.render(chosen());
  if (out.empty()) {
    print_result(text);
  } else {
    write_file(out, text);
  }
}

void add_table_output(CLI::App* command, TableOutput& output) {
  auto* format =
      command->add_option("--format", output.format, "text, md, latex, csv or json")
          ->group("Table")
          ->check([](const std::string& name) {
            return table_format(name) ? std::string() : "wanted text, md, latex, csv or json, got " + name;
          })
          ->capture_default_str();
  command->add_flag("--json", output.json, "The same as --format json")->group("Table")->excludes(format);
  command->add_option("--out", output.out, "Write the table there instead of to stdout")
      ->group("Table")
      ->type_name("FILE")
      ->check(kNamed);
}

}  // namespace hax
