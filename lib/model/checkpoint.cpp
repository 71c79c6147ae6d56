#include "lib/model/checkpoint.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/json.h"
#include "lib/base/safetensors.h"
#include "lib/config/load.h"
#include "lib/config/write.h"
#include "lib/data/token_slots.h"
#include "lib/model/precision.h"

namespace hax {
namespace {

constexpr const char* kFormat = "hax-checkpoint/1";
constexpr const char* kExpAvg = "optimizer.exp_avg.";
constexpr const char* kExpAvgSq = "optimizer.exp_avg_sq.";

using Json = nlohmann::json;

std::string hash_matrix_name(int64_t layer) {
  return "layers." + std::to_string(layer) + ".mixer.hash_matrix";
}

bool uses_lsh(const ModelConfig& config) {
  for (auto pattern : config.sparse.patterns) {
    if (pattern == PatternKind::lsh) return true;
  }
  return false;
}

Json to_json(const CheckpointInfo& info) {
  return {{"step", info.step},
          {"tokens_seen", info.tokens_seen},
          {"valid_accuracy", info.valid_accuracy},
          {"best_accuracy", info.best_accuracy},
          {"best_step", info.best_step},
          {"rewinds", info.rewinds},
          {"skipped_batches", info.skipped_batches},
          {"data_fingerprint", info.data_fingerprint},
          {"data",
           {{"task", info.data.task},
            {"vocab_size", info.data.vocab_size},
            {"padded_tokens", info.data.padded_tokens},
            {"targets", info.data.target_kind == TargetKind::label ? "label" : "next_token"},
            {"slice_columns", info.data.slice_columns},
            {"chance", info.data.chance},
            {"slots", info.data.slots}}}};
}

// Over the config, the state and every tensor in file order.
class CheckpointSum {
 public:
  CheckpointSum(const std::string& config, const std::string& state) {
    sum_.update(as_bytes(config));
    sum_.update(as_bytes(state));
  }
  void add(const std::string& name, std::span<const std::byte> bytes) {
    sum_.update(as_bytes(name));
    sum_.update(bytes);
  }
  std::string hex() const { return sum_.hex(); }

 private:
  Checksum sum_;
};

CheckpointInfo info_from(const Safetensors& file) {
  const auto& metadata = file.metadata();
  auto field = [&](const char* name) -> const std::string& {
    const auto found = metadata.find(name);
    if (found == metadata.end()) {
      throw DataError(file.path() + ": not a checkpoint of hax: its metadata has no '" + name + "'");
    }
    return found->second;
  };
  if (field("format") != kFormat) {
    throw DataError(file.path() + ": checkpoint format '" + field("format") + "', this program reads '" +
                    kFormat + "'");
  }
  CheckpointSum sum(field("config"), field("state"));
  for (const auto& tensor : file.tensors()) sum.add(tensor.name, file.bytes(tensor.name));
  if (sum.hex() != field("checksum")) {
    throw DataError(file.path() +
                    ": damaged: its contents do not give the checksum it carries; use the run's other "
                    "checkpoint, or train again");
  }
  CheckpointInfo info;
  try {
    info.config = parse_config(field("config"), file.path());
  } catch (const UsageError& e) {
    throw DataError(file.path() + ": damaged config in the checkpoint:\n" + e.what());
  }
  Json document;
  try {
    document = parse_json(field("state"));
  } catch (const DataError& e) {
    throw DataError(file.path() + ": damaged checkpoint metadata: " + e.what());
  }
  const JsonReader state(document, file.path() + ": damaged checkpoint metadata",
                         "use the run's other checkpoint, or train again");
  info.step = state.integer("step", 0, INT64_MAX);
  info.tokens_seen = state.integer("tokens_seen", 0, INT64_MAX);
  info.valid_accuracy = state.number("valid_accuracy", -1.0, 1.0);
  info.best_accuracy = state.number("best_accuracy", -1.0, 1.0);
  info.best_step = state.integer("best_step", 0, INT64_MAX);
  if (state.has("rewinds")) info.rewinds = state.integer("rewinds", 0, INT64_MAX);  // older ones: neither
  if (state.has("skipped_batches"))
    info.skipped_batches = state.integer("skipped_batches", 0, INT64_MAX);
  info.data_fingerprint = state.text("data_fingerprint");
  const JsonReader data = state.child("data");
  info.data.task = data.text("task");
  info.data.vocab_size = data.integer("vocab_size", 1, INT32_MAX);
  info.data.padded_tokens = data.integer("padded_tokens", 0, INT32_MAX);
  info.data.target_kind = data.text("targets") == "label" ? TargetKind::label : TargetKind::next_token;
  info.data.slice_columns = data.texts("slice_columns");
  info.data.chance = data.number("chance", 0.0, 1.0);
  if (data.has("slots"))
    info.data.slots = read_slots(data, "slots", info.data.vocab_size);  // older ones: none
  return info;
}

// Bytes on the host that outlive the writer's borrowed spans; bf16 as it is, all else as fp32.
class TensorList {
 public:
  void add(const std::string& name, const at::Tensor& tensor) {
    const bool bf16 = tensor.scalar_type() == at::kBFloat16;
    const auto host = tensor.detach().to(at::kCPU, bf16 ? at::kBFloat16 : at::kFloat).contiguous();
    held_.push_back(host);
    list_.push_back({name,
                     bf16 ? Dtype::bf16 : Dtype::f32,
                     host.sizes().vec(),
                     {static_cast<const std::byte*>(host.data_ptr()), static_cast<size_t>(host.nbytes())}});
  }
  const std::vector<TensorToWrite>& list() const { return list_; }

 private:
  std::vector<at::Tensor> held_;
  std::vector<TensorToWrite> list_;
};

// In the file's own dtype, fp32 or bf16.
at::Tensor read_tensor(const Safetensors& file, const std::string& name, at::IntArrayRef shape) {
  const auto& info = file.info(name);
  if (info.shape != shape.vec()) {
    std::ostringstream text;
    text << file.path() << ": tensor '" << name << "' has shape " << at::IntArrayRef(info.shape)
         << ", the checkpoint's config asks for " << shape;
    throw DataError(text.str());
  }
  if (info.dtype == Dtype::bf16) {
    at::Tensor values = at::empty(shape, at::TensorOptions().dtype(at::kBFloat16));
    const auto bytes = file.bytes(name);
    if (!bytes.empty()) std::memcpy(values.mutable_data_ptr(), bytes.data(), bytes.size());
    return values;
  }
  return at::tensor(file.values<float>(name), at::kFloat).reshape(shape);
}

}  // namespace

void write_checkpoint(const std::string& path, const LanguageModel& model, const CheckpointInfo& info,
                      const OptimizerState* optimizer) {
  TensorList tensors;
  for (const auto& p : model.parameters().all()) tensors.add(p->name, p->value);
  if (optimizer != nullptr) {
    for (const auto& [prefix, flat] :
         {std::pair{kExpAvg, optimizer->exp_avg}, {kExpAvgSq, optimizer->exp_avg_sq}}) {
      int64_t offset = 0;
      for (const auto& p : model.parameters().all()) {
        tensors.add(prefix + p->name, flat.narrow(0, offset, p->value.numel()).view(p->shape));
        offset += p->value.numel();
      }
    }
  }
  const EvaluationDraws draws(info.config, at::kCPU);
  for (size_t i = 0; i < draws.stored().size(); ++i) tensors.add(hash_matrix_name(i), draws.stored()[i]);
  const std::string config = to_yaml(info.config), state = to_json(info).dump();
  CheckpointSum sum(config, state);
  for (const auto& tensor : tensors.list()) sum.add(tensor.name, tensor.bytes);
  write_safetensors(path, tensors.list(),
                    {{"format", kFormat}, {"config", config}, {"state", state}, {"checksum", sum.hex()}});
}

EvaluationDraws::EvaluationDraws(const Config& config, at::Device device)
    : mode_(config.model.mode), seed_(config.train.seed) {
  if (mode_ == Statistics::causal && uses_lsh(config.model)) {
    const PhiloxDraws fixed(seed_, 0, /*training=*/false, /*fixed_eval_hash=*/true, /*fill_with_pad=*/false);
    for (int64_t i = 0; i < config.model.layers; ++i) {
      stored_.push_back(fixed.hash_matrix(i, config.model.d_qk(), config.model.sparse.hash_bits).to(device));
    }
  }
}

EvaluationDraws::EvaluationDraws(const Config& config, std::vector<at::Tensor> stored)
    : mode_(config.model.mode), seed_(config.train.seed), stored_(std::move(stored)) {}

at::Tensor EvaluationDraws::hash_matrix(int64_t layer, int64_t d, int64_t h) const {
  if (mode_ == Statistics::causal) return stored_.at(layer);
  return PhiloxDraws(seed_, batch_, false, /*fixed_eval_hash=*/false, false).hash_matrix(layer, d, h);
}

at::Tensor EvaluationDraws::sampled_positions(int64_t, int64_t, const ops::PackedLayout&) const {
  throw std::logic_error("evaluation has no ranking loss and samples no positions");
}

CheckpointInfo read_checkpoint_info(const std::string& path) { return info_from(Safetensors::open(path)); }

LoadedCheckpoint read_checkpoint(const std::string& path, at::Device device) {
  const auto file = Safetensors::open(path);
  LoadedCheckpoint loaded;
  loaded.info = info_from(file);
  const auto& config = loaded.info.config;
  loaded.model = std::make_unique<LanguageModel>(config.model, loaded.info.data, config.train.seed, device,
                                                 weight_dtype(config.train.precision));
  auto& parameters = loaded.model->parameters();
  const at::NoGradGuard no_grad;
  const bool with_optimizer = file.contains(kExpAvg + parameters.all().front()->name);
  if (with_optimizer) {
    loaded.optimizer = {at::zeros_like(parameters.flat()), at::zeros_like(parameters.flat())};
  }
  int64_t offset = 0;
  for (const auto& p : parameters.all()) {
    p->value.copy_(read_tensor(file, p->name, p->shape));
    if (with_optimizer) {
      const int64_t n = p->value.numel();
      loaded.optimizer.exp_avg.narrow(0, offset, n)
          .copy_(read_tensor(file, kExpAvg + p->name, p->shape).flatten());
      loaded.optimizer.exp_avg_sq.narrow(0, offset, n)
          .copy_(read_tensor(file, kExpAvgSq + p->name, p->shape).flatten());
      offset += n;
    }
  }
  std::vector<at::Tensor> hash_matrices;
  if (config.model.mode == Statistics::causal && uses_lsh(config.model)) {
    for (int64_t i = 0; i < config.model.layers; ++i) {
      hash_matrices.push_back(
          read_tensor(file, hash_matrix_name(i), {config.model.d_qk(), config.model.sparse.hash_bits})
              .to(device));
    }
  }
  loaded.draws = std::make_unique<EvaluationDraws>(config, std::move(hash_matrices));
  return loaded;
}

}  // namespace hax
