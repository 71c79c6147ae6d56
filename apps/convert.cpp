#include "lib/convert/convert.h"

#include <map>

#include "apps/commands.h"
#include "data_gen/registry.h"
#include "lib/base/log.h"
#include "lib/config/load.h"

namespace hax {
namespace {

struct Options {
  ConvertOptions convert;
  std::vector<std::string> configs, sets;
  std::string to;
};

const std::map<std::string, WeightForm> kForms = {
    {"hax", WeightForm::hax}, {"official", WeightForm::official}, {"huggingface", WeightForm::huggingface}};

int run_convert(const Options& options) {
  ConvertOptions o = options.convert;
  o.to = kForms.at(options.to);
  o.config = load_config(options.configs, options.sets);
  o.configured = !options.configs.empty() || !options.sets.empty();
  o.data = make_task(o.config.task)->spec();
  for (const auto& line : convert(o)) log::info(line);
  return 0;
}

}  // namespace

void add_convert(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand(
      "convert", "Convert weights between checkpoints, the official code's names and Hugging Face's folders");
  auto o = std::make_shared<Options>();
  command
      ->add_option("in", o->convert.in,
                   "Checkpoint, safetensors file with official names, or folder with config.json")
      ->type_name("IN")
      ->required()
      ->check(kNamed);
  command->add_option("out", o->convert.out, "New file; for Hugging Face's form a folder, new or empty")
      ->type_name("OUT")
      ->required()
      ->check(kNamed);
  command->add_option("--to", o->to, "hax, official or huggingface")
      ->required()
      ->check(CLI::IsMember({"hax", "official", "huggingface"}));
  command
      ->add_option("--config", o->configs, "YAML file with what the input does not say: task, mode, patterns")
      ->group("Config")
      ->type_name("FILE")
      ->allow_extra_args(false)  // what follows is IN
      ->check(kNamed);
  command->add_option("--set", o->sets, "key=value on top of the files, e.g. model.mode=paper")
      ->group("Config")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command
      ->add_option("--prefix", o->convert.prefix,
                   "To official: before every name, e.g. backbone. ; lm_head.weight is written too then")
      ->group("Output")
      ->type_name("TEXT");
  command
      ->add_flag("--drop-sparse", o->convert.drop_sparse,
                 "To huggingface: leave the sparse branch behind, which changes what the model computes")
      ->group("Output");
  command->footer(
      "Example: hax convert runs/hax-2/checkpoints/best.safetensors weights.safetensors --to official");
  command->callback([o, &action] { action = [o] { return run_convert(*o); }; });
}

}  // namespace hax
