#include "data_gen/text.h"
#include "apps/commands.h"
#include "hax_version.h"
#include "lib/base/log.h"

namespace hax {

void add_import_text(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("import-text", "Make a dataset of the official joint-recall text files");
  auto o = std::make_shared<TextImport>();
  o->program_version = HAX_VERSION;
  command->add_option("--from", o->folder, "Folder with the six text files")
      ->type_name("DIR")
      ->required()
      ->check(kNamed);
  command->add_option("--stem", o->stem,
                      "File names before _train_inputs.txt; needed where the folder holds several");
  command->add_option("--n-value", o->n_value, "Number of values of the table, which the files do not tell")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--out", o->out, "Dataset folder, new or empty")
      ->type_name("DIR")
      ->required()
      ->check(kNamed);
  command->add_option("--threads", o->threads, "CPU threads; 0: all")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->footer("Example: hax import-text --from official --out runs/data");
  command->callback([o, &action] {
    action = [o] {
      import_text(*o);
      log::info(o->out + ": imported from " + o->folder);
      return 0;
    };
  });
}

void add_export_text(CLI::App& app, Action& action) {
  struct Options {
    std::string data, out;
    int threads = 0;
  };
  auto* command =
      app.add_subcommand("export-text", "Write a joint-recall dataset as the official text files");
  auto o = std::make_shared<Options>();
  command->add_option("--data", o->data, "Dataset folder")->type_name("DIR")->required()->check(kNamed);
  command->add_option("--out", o->out, "Folder for the six text files")
      ->type_name("DIR")
      ->required()
      ->check(kNamed);
  command->add_option("--threads", o->threads, "CPU threads; 0: all")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->footer("Example: hax export-text --data runs/data --out official");
  command->callback([o, &action] {
    action = [o] {
      export_text(o->data, o->out, o->threads);
      log::info(o->out + ": exported from " + o->data);
      return 0;
    };
  });
}

}  // namespace hax
