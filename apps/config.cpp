#include "apps/commands.h"
#include "lib/base/log.h"
#include "lib/config/load.h"
#include "lib/config/write.h"

namespace hax {
namespace {

struct Options {
  std::vector<std::string> configs, sets;
  std::string key;
  bool json = false, markdown = false;
};

void add_layers(CLI::App* command, const std::shared_ptr<Options>& o) {
  command->add_option("--config", o->configs, "YAML file; several are layered in order")->type_name("FILE");
  command->add_option("--set", o->sets, "key=value on top of the files")->type_name("KEY=VALUE");
}

}  // namespace

CLI::Option* add_config_options(CLI::App& command, std::vector<std::string>& configs,
                                std::vector<std::string>& sets, const std::string& example,
                                const std::string& about) {
  auto* config =
      command.add_option("--config", configs, about)->group("Config")->type_name("FILE")->check(kNamed);
  command
      .add_option("--set", sets,
                  "key=value on top of the files" + (example.empty() ? "" : ", e.g. " + example))
      ->group("Config")
      ->type_name("KEY=VALUE");
  return config;
}

void add_config(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("config", "Show, check or explain the configuration");
  command->require_subcommand(1);
  command->footer("Example: hax config explain model.sparse.k");
  auto o = std::make_shared<Options>();

  auto* show = command->add_subcommand("show", "Print the resolved config: defaults, files and --set");
  add_layers(show, o);
  show->add_flag("--json", o->json, "As JSON instead of YAML");
  show->callback([o, &action] {
    action = [o] {
      const Config config = load_config(o->configs, o->sets);
      print_result(o->json ? to_json(config) + "\n" : to_yaml(config));
      return 0;
    };
  });

  auto* check = command->add_subcommand("check", "Say what is wrong with a config, or that nothing is");
  add_layers(check, o);
  check->callback([o, &action] {
    action = [o] {
      load_config(o->configs, o->sets);
      log::info("the config is sound");
      return 0;
    };
  });

  auto* explain_command = command->add_subcommand("explain", "Explain a key, a section, or all keys");
  auto* key =
      explain_command->add_option("key", o->key, "Dotted key, e.g. train.lr or model; none: everything")
          ->type_name("KEY");
  explain_command->add_flag("--markdown", o->markdown, "All keys as docs/configuration.md")->excludes(key);
  explain_command->callback([o, &action] {
    action = [o] {
      print_result(o->markdown ? configuration_markdown() : explain(o->key));
      return 0;
    };
  });
}

}  // namespace hax
