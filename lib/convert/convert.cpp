#include "lib/convert/convert.h"

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/config/check.h"
#include "lib/config/names.h"
#include "lib/convert/huggingface.h"
#include "lib/convert/shapes.h"
#include "lib/convert/weight_file.h"
#include "lib/model/checkpoint.h"
#include "lib/model/precision.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormNames[] = {"hax", "official", "huggingface"};
const char* form_name(WeightForm form) { return kFormNames[static_cast<size_t>(form)]; }

struct Input {
  WeightForm form = WeightForm::hax;
  Config config;
  std::unique_ptr<LanguageModel> model;
  std::vector<std::string> left_behind;
};

WeightForm form_of(const std::string& path) {
  if (fs::is_directory(path)) {
    if (is_huggingface(path)) return WeightForm::huggingface;
    if (fs::exists(path + "/config.yaml")) {
      throw UsageError(path + ": is a run folder; name one of its checkpoints, e.g. " + path +
                       "/checkpoints/best.safetensors");
    }
    throw DataError(path + ": is a folder without config.json, so no model of Hugging Face's");
  }
  const auto file = Safetensors::open(path);
  const auto format = file.metadata().find("format");
  if (format != file.metadata().end() && format->second.starts_with("hax-checkpoint")) return WeightForm::hax;
  if (WeightFile::recognises(file)) return WeightForm::official;
  throw DataError(path + ": is neither a checkpoint of hax nor weights under official names: it has no " +
                  "embeddings.weight, with or without a prefix");
}

Input read_hax(const std::string& path) {
  auto loaded = read_checkpoint(path, at::kCPU);
  Input in;
  in.config = loaded.info.config;
  in.model = std::move(loaded.model);
  if (loaded.optimizer.exp_avg.defined()) in.left_behind.emplace_back("the optimiser's state");
  if (in.config.model.has_mixer(MixerKind::constructive)) {
    throw UsageError(
        path +
        ": is a constructive solution, whose mixers have no weights: neither the official code nor "
        "Hugging Face has a place for it");
  }
  if (!loaded.draws->stored().empty()) in.left_behind.emplace_back("the hash matrices of evaluation");
  return in;
}

std::unique_ptr<LanguageModel> filled_model(const WeightFile& weights, const Config& config) {
  std::string faults;
  for (const auto& message : check(config)) faults += "\n  " + message;
  if (!faults.empty()) throw DataError(weights.path() + ": gives a model that cannot be:" + faults);
  const int64_t vocab_size = weights.shape("embeddings.weight").front();
  auto model = std::make_unique<LanguageModel>(config.model, vocab_size, config.train.seed, at::kCPU,
                                               weight_dtype(config.train.precision));
  weights.fill(model->parameters());
  return model;
}

Input read_official(const std::string& path, const Config& given) {
  const WeightFile weights(Safetensors::open(path));
  Input in;
  in.config = config_from_shapes(weights, given);
  in.model = filled_model(weights, in.config);
  return in;
}

Input read_huggingface(const std::string& path, const Config& given) {
  const auto opened = open_huggingface(path, given);
  Input in;
  in.config = opened.config.config;
  in.model = filled_model(opened.weights, in.config);
  return in;
}

std::string described(const ModelConfig& m, const LanguageModel& model) {
  std::string text;
  for (const MixerKind kind : m.mixer) text += (text.empty() ? "" : ", ") + std::string(name_of(kind));
  return "[" + text + "], " + std::to_string(m.layers) + " layers, d_model " + std::to_string(m.d_model) +
         ", vocabulary " + std::to_string(model.vocab_size()) + ", " +
         std::to_string(model.parameters().numel()) + " parameters";
}

void check_options(const ConvertOptions& o, WeightForm from) {
  if (from == o.to)
    throw UsageError(o.in + ": is of form " + form_name(from) + " already; name another --to");
  if (o.configured && from == WeightForm::hax) {
    throw UsageError("--config, --set: " + o.in + " carries its own config; leave them out");
  }
  if (o.configured && from == WeightForm::huggingface && o.to == WeightForm::official) {
    throw UsageError("--config, --set: " + o.in + " says all that --to official needs; leave them out");
  }
  if (!o.prefix.empty() && o.to != WeightForm::official) {
    throw UsageError("--prefix: is for --to official alone; leave it out");
  }
  if (o.drop_sparse && o.to != WeightForm::huggingface) {
    throw UsageError("--drop-sparse: is for --to huggingface alone; leave it out");
  }
  if (fs::exists(fs::symlink_status(o.out)) && o.to != WeightForm::huggingface) {
    throw UsageError(o.out + ": exists already; name another output, or remove it");
  }
}

void write_hax(const ConvertOptions& o, const Input& in) {
  CheckpointInfo info;
  info.config = in.config;
  info.data = o.data;
  if (info.data.vocab_size > in.model->vocab_size()) {
    throw UsageError("task.name = " + std::string(name_of(in.config.task.name)) + " has a vocabulary of " +
                     std::to_string(info.data.vocab_size) + " tokens, " + o.in + " has embeddings of " +
                     std::to_string(in.model->vocab_size()) +
                     "; give the `task` section it was trained on (--config)");
  }
  info.data.vocab_size = in.model->vocab_size();
  write_checkpoint(o.out, *in.model, info, nullptr);
}

bool has_sparse_branch(const LanguageModel& model) {
  const auto& all = model.parameters().all();
  return std::any_of(all.begin(), all.end(), [](const auto& p) { return is_sparse_parameter(p->name); });
}

}  // namespace

std::vector<std::string> convert(const ConvertOptions& o) {
  const WeightForm from = form_of(o.in);
  check_options(o, from);
  Input in = from == WeightForm::hax        ? read_hax(o.in)
             : from == WeightForm::official ? read_official(o.in, o.config)
                                            : read_huggingface(o.in, o.config);
  std::vector<std::string> said = {o.in + ": " + form_name(from) + ", " +
                                   described(in.config.model, *in.model)};
  std::string detail;
  switch (o.to) {
    case WeightForm::hax:
      write_hax(o, in);
      detail = ", task " + o.data.task + ", mode " + std::string(name_of(in.config.model.mode));
      break;
    case WeightForm::official: {
      std::vector<const Parameter*> all;
      for (const auto& p : in.model->parameters().all()) all.push_back(p.get());
      write_weights(o.out, all, o.prefix, /*head=*/!o.prefix.empty());
      break;
    }
    case WeightForm::huggingface:
      if (has_sparse_branch(*in.model)) {
        if (!o.drop_sparse) {
          throw UsageError(
              o.in +
              ": has a sparse branch (mixer.E, mixer.xx_proj, mixer.dx_proj_*), for which Hugging Face's "
              "classes have no place; --drop-sparse leaves it behind, and the model computes something "
              "else then");
        }
        in.left_behind.emplace_back("the sparse branch, so that the model computes something else");
      }
      write_huggingface(o.out, *in.model);
      break;
  }
  said.push_back(o.out + ": " + form_name(o.to) + detail);
  for (const auto& what : in.left_behind) said.push_back("left behind: " + what);
  return said;
}

}  // namespace hax
