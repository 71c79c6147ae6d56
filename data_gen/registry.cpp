#include "data_gen/registry.h"

#include <optional>
#include <stdexcept>

#include "data_gen/induction_heads.h"
#include "data_gen/joint_recall.h"
#include "data_gen/mqar.h"
#include "data_gen/mqar_compositional.h"
#include "data_gen/mqar_forgetting.h"
#include "data_gen/multilevel_joint_recall.h"
#include "data_gen/noisy_joint_recall.h"
#include "data_gen/selective_copying.h"
#include "lib/base/error.h"
#include "lib/base/json.h"
#include "lib/config/names.h"

namespace hax {
namespace {

// The parameters() of each task, read back.
void read(const JsonReader& parameters, JointRecallConfig& task) {
  parameters.get("n_context_min", task.n_context_min);
  parameters.get("n_context_max", task.n_context_max);
  parameters.get("n_key_min", task.n_key_min);
  parameters.get("n_key_max", task.n_key_max);
  parameters.get("n_value", task.n_value);
  parameters.get("vocab_size", task.vocab_size);
}

void read(const JsonReader& parameters, MultilevelJointRecallConfig& task) {
  parameters.get("levels", task.levels);
  parameters.get("n_value", task.n_value);
  parameters.get("vocab_size", task.vocab_size);
}

void read(const JsonReader& parameters, NoisyJointRecallConfig& task) {
  parameters.get("n_context_min", task.n_context_min);
  parameters.get("n_context_max", task.n_context_max);
  parameters.get("n_key_min", task.n_key_min);
  parameters.get("n_key_max", task.n_key_max);
  parameters.get("n_value", task.n_value);
  parameters.get("length", task.length);
  parameters.get("n_noise", task.n_noise);
  parameters.get("noise_in_blocks", task.noise_in_blocks);
  parameters.get("vocab_size", task.vocab_size);
}

void read(const JsonReader& parameters, MqarConfig& task) {
  parameters.get("vocab_size", task.vocab_size);
  parameters.get("input_seq_len", task.input_seq_len);
  parameters.get("num_kv_pairs", task.num_kv_pairs);
  if (parameters.has("weights")) parameters.get("weights", task.weights);
  parameters.get("power_a", task.power_a);
  parameters.get("random_non_queries", task.random_non_queries);
}

void read(const JsonReader& parameters, MqarCompositionalConfig& task) {
  parameters.get("vocab_size", task.vocab_size);
  parameters.get("input_seq_len", task.input_seq_len);
  parameters.get("num_kv_pairs", task.num_kv_pairs);
  parameters.get("power_a", task.power_a);
  parameters.get("random_non_queries", task.random_non_queries);
}

void read(const JsonReader& parameters, MqarForgettingConfig& task) {
  parameters.get("vocab_size", task.vocab_size);
  parameters.get("input_seq_len", task.input_seq_len);
  parameters.get("num_kv_pairs", task.num_kv_pairs);
  parameters.get("num_updates", task.num_updates);
  parameters.get("power_a", task.power_a);
  parameters.get("random_non_queries", task.random_non_queries);
}

void read(const JsonReader& parameters, InductionHeadsConfig& task) {
  parameters.get("length", task.length);
  parameters.get("n_token", task.n_token);
}

void read(const JsonReader& parameters, SelectiveCopyingConfig& task) {
  parameters.get("length", task.length);
  parameters.get("n_data", task.n_data);
  parameters.get("n_token", task.n_token);
  parameters.get("n_noise", task.n_noise);
}

TaskConfig parse_parameters(const Manifest& manifest, const std::string& folder) {
  const std::optional<TaskKind> kind = value_of<TaskKind>(manifest.spec.task);
  if (!kind) {
    throw UsageError("task '" + manifest.spec.task + "' is unknown: one of " + all_names<TaskKind>());
  }
  const nlohmann::json object = parse_json(manifest.parameters);
  const JsonReader parameters(object, manifest_path(folder) + ": parameters",
                              "generate the dataset again (hax gen-data)");
  TaskConfig config;
  config.name = *kind;
  switch (*kind) {
    case TaskKind::joint_recall:
      read(parameters, config.joint_recall);
      break;
    case TaskKind::multilevel_joint_recall:
      read(parameters, config.multilevel_joint_recall);
      break;
    case TaskKind::noisy_joint_recall:
      read(parameters, config.noisy_joint_recall);
      break;
    case TaskKind::mqar:
      read(parameters, config.mqar);
      break;
    case TaskKind::mqar_compositional:
      read(parameters, config.mqar_compositional);
      break;
    case TaskKind::mqar_forgetting:
      read(parameters, config.mqar_forgetting);
      break;
    case TaskKind::induction_heads:
      read(parameters, config.induction_heads);
      break;
    case TaskKind::selective_copying:
      read(parameters, config.selective_copying);
      break;
  }
  return config;
}

}  // namespace

std::unique_ptr<Task> make_task(const TaskConfig& config) {
  switch (config.name) {
    case TaskKind::joint_recall:
      return std::make_unique<JointRecall>(config.joint_recall);
    case TaskKind::multilevel_joint_recall:
      return std::make_unique<MultilevelJointRecall>(config.multilevel_joint_recall);
    case TaskKind::noisy_joint_recall:
      return std::make_unique<NoisyJointRecall>(config.noisy_joint_recall);
    case TaskKind::mqar:
      return std::make_unique<Mqar>(config.mqar);
    case TaskKind::mqar_compositional:
      return std::make_unique<MqarCompositional>(config.mqar_compositional);
    case TaskKind::mqar_forgetting:
      return std::make_unique<MqarForgetting>(config.mqar_forgetting);
    case TaskKind::induction_heads:
      return std::make_unique<InductionHeads>(config.induction_heads);
    case TaskKind::selective_copying:
      return std::make_unique<SelectiveCopying>(config.selective_copying);
  }
  throw std::invalid_argument("make_task: task kind " + std::to_string(static_cast<int>(config.name)));
}

std::unique_ptr<Task> make_task(const Manifest& manifest, const std::string& folder) {
  std::string fault = "its spec is not that of its parameters";
  try {
    std::unique_ptr<Task> task = make_task(parse_parameters(manifest, folder));
    const DataSpec& a = task->spec();
    const DataSpec& b = manifest.spec;
    if (task->parameters() == manifest.parameters && a.vocab_size == b.vocab_size &&
        a.padded_tokens == b.padded_tokens && a.target_kind == b.target_kind &&
        a.slice_columns == b.slice_columns) {
      return task;
    }
  } catch (const UsageError& error) {
    fault = error.what();
  }
  throw DataError(manifest_path(folder) + ": no task of this program made this dataset (" + fault +
                  "); generate it again (hax gen-data)");
}

TaskConfig task_config(const Manifest& manifest, const std::string& folder) {
  make_task(manifest, folder);  // throws where the parameters are none of ours
  return parse_parameters(manifest, folder);
}

}  // namespace hax
