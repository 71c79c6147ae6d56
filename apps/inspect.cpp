#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/commands.h"
#include "data_gen/draw.h"
#include "data_gen/registry.h"
#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/parallel.h"
#include "lib/base/safetensors.h"
#include "lib/data/dataset.h"
#include "lib/data/token_slots.h"

namespace hax {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Options {
  std::string path, split = "train";
  int64_t example = -1;
  bool json = false;
};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string tensor_file(const std::string& path, bool json) {
  const auto file = Safetensors::open(path);
  const std::string fingerprint = checksum(as_bytes(read_file(path)));
  if (json) {
    Json out = {{"file", path},
                {"bytes", fs::file_size(path)},
                {"fingerprint", fingerprint},
                {"metadata", file.metadata()},
                {"tensors", Json::array()}};
    for (const auto& t : file.tensors()) {
      out["tensors"].push_back({{"name", t.name}, {"dtype", dtype_name(t.dtype)}, {"shape", t.shape}});
    }
    return out.dump(2) + "\n";
  }
  std::ostringstream out;
  out << path << ": " << file.tensors().size() << " tensors, " << fs::file_size(path)
      << " bytes, fingerprint " << fingerprint << "\n";
  for (const auto& [key, value] : file.metadata()) {
    out << "\n" << key << ":\n  ";
    for (char c : value) out << (c == '\n' ? std::string("\n  ") : std::string(1, c));
    out << "\n";
  }
  out << "\n";
  for (const auto& t : file.tensors())
    out << t.name << "  " << dtype_name(t.dtype) << " " << shape_text(t.shape) << "\n";
  return out.str();
}

std::string dataset_folder(const std::string& folder, bool json) {
  const Dataset dataset = Dataset::open(folder, hardware_threads());
  const Manifest& m = dataset.manifest();
  Json out = {{"folder", folder},
              {"task", m.spec.task},
              {"parameters", Json::parse(m.parameters)},
              {"vocab_size", m.spec.vocab_size},
              {"padded_tokens", m.spec.padded_tokens},
              {"targets", m.spec.target_kind == TargetKind::label ? "label" : "next_token"},
              {"slice_columns", m.spec.slice_columns},
              {"chance", m.spec.chance},
              {"slots", Json::parse(nlohmann::json(m.spec.slots).dump())},
              {"seed", m.seed},
              {"origin", m.origin},
              {"program_version", m.program_version},
              {"fingerprint", m.fingerprint()}};
  for (Split split : kSplits) {
    const SplitEntry& entry = m.split(split);
    out[std::string(split_name(split))] = {{"examples", entry.examples},
                                           {"tokens", entry.tokens},
                                           {"bytes", entry.bytes},
                                           {"checksum", entry.checksum}};
  }
  if (json) return out.dump(2) + "\n";
  std::ostringstream text;
  for (const auto& [key, value] : out.items()) {
    text << key << ": " << (value.is_string() ? value.get<std::string>() : value.dump()) << "\n";
  }
  return text.str();
}

std::string one_example(const Options& o) {
  const Dataset dataset = Dataset::open(o.path, hardware_threads());
  const FileSource& source = dataset.split(parse_split(o.split));
  if (o.example >= source.size()) {
    throw UsageError("--example " + std::to_string(o.example) + ": the " + o.split + " split of " + o.path +
                     " has examples 0.." + std::to_string(source.size() - 1));
  }
  Example example;
  source.example(o.example, example);
  return draw(*make_task(dataset.manifest(), o.path), example);
}

int run_inspect(const Options& o) {
  std::string text;
  if (o.example >= 0 && o.json)
    throw UsageError("--json: a drawn example is text; leave out --example or --json");
  if (fs::exists(o.path + "/config.yaml")) {
    throw UsageError(o.path + ": is a run folder; inspect one of its files, e.g. " + o.path +
                     "/checkpoints/best.safetensors");
  }
  if (fs::is_directory(o.path)) {
    text = o.example >= 0 ? one_example(o) : dataset_folder(o.path, o.json);
  } else if (o.example >= 0) {
    throw UsageError("--example: " + o.path + " is no dataset folder");
  } else {
    text = tensor_file(o.path, o.json);
  }
  print_result(text);
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("inspect", "Show what is in a dataset folder, a checkpoint or any safetensors file");
  auto o = std::make_shared<Options>();
  command->add_option("path", o->path, "Dataset folder or safetensors file")
      ->type_name("FILE")
      ->required()
      ->check(kNamed);
  command->add_option("--example", o->example, "Draw this example of a dataset, with each token's role")
      ->group("Dataset")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  command->add_option("--split", o->split, "train, valid or test")
      ->group("Dataset")
      ->check(CLI::IsMember({"train", "valid", "test"}))
      ->capture_default_str();
  command->add_flag("--json", o->json, "As JSON");
  command->footer("Example: hax inspect runs/data --split test --example 3");
  command->callback([o, &action] { action = [o] { return run_inspect(*o); }; });
}

}  // namespace hax
