#include "data_gen/registry.h"

#include <nlohmann/json.hpp>
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
#include "lib/config/names.h"

namespace hax {
namespace {

using nlohmann::json;

// The parameters() of each task, read back.
void read(const json& parameters, JointRecallConfig& task) {
  parameters.at("n_context_min").get_to(task.n_context_min);
  parameters.at("n_context_max").get_to(task.n_context_max);
  parameters.at("n_key_min").get_to(task.n_key_min);
  parameters.at("n_key_max").get_to(task.n_key_max);
  parameters.at("n_value").get_to(task.n_value);
  parameters.at("vocab_size").get_to(task.vocab_size);
}

void read(const json& parameters, MultilevelJointRecallConfig& task) {
  parameters.at("levels").get_to(task.levels);
  parameters.at("n_value").get_to(task.n_value);
  parameters.at("vocab_size").get_to(task.vocab_size);
}

void read(const json& parameters, NoisyJointRecallConfig& task) {
  parameters.at("n_context_min").get_to(task.n_context_min);
  parameters.at("n_context_max").get_to(task.n_context_max);
  parameters.at("n_key_min").get_to(task.n_key_min);
  parameters.at("n_key_max").get_to(task.n_key_max);
  parameters.at("n_value").get_to(task.n_value);
  parameters.at("length").get_to(task.length);
  parameters.at("n_noise").get_to(task.n_noise);
  parameters.at("noise_in_blocks").get_to(task.noise_in_blocks);
  parameters.at("vocab_size").get_to(task.vocab_size);
}

// A plain number stands for a list of one.
std::vector<int64_t> list_of(const json& value) {
  return value.is_array() ? value.get<std::vector<int64_t>>() : std::vector<int64_t>{value.get<int64_t>()};
}

void read(const json& parameters, MqarConfig& task) {
  parameters.at("vocab_size").get_to(task.vocab_size);
  task.input_seq_len = list_of(parameters.at("input_seq_len"));
  task.num_kv_pairs = list_of(parameters.at("num_kv_pairs"));
  task.weights = parameters.value("weights", std::vector<int64_t>());
  parameters.at("power_a").get_to(task.power_a);
  parameters.at("random_non_queries").get_to(task.random_non_queries);
}

void read(const json& parameters, MqarCompositionalConfig& task) {
  parameters.at("vocab_size").get_to(task.vocab_size);
  parameters.at("input_seq_len").get_to(task.input_seq_len);
  parameters.at("num_kv_pairs").get_to(task.num_kv_pairs);
  parameters.at("power_a").get_to(task.power_a);
  parameters.at("random_non_queries").get_to(task.random_non_queries);
}

void read(const json& parameters, MqarForgettingConfig& task) {
  parameters.at("vocab_size").get_to(task.vocab_size);
  parameters.at("input_seq_len").get_to(task.input_seq_len);
  parameters.at("num_kv_pairs").get_to(task.num_kv_pairs);
  parameters.at("num_updates").get_to(task.num_updates);
  parameters.at("power_a").get_to(task.power_a);
  parameters.at("random_non_queries").get_to(task.random_non_queries);
}

void read(const json& parameters, InductionHeadsConfig& task) {
  parameters.at("length").get_to(task.length);
  parameters.at("n_token").get_to(task.n_token);
}

void read(const json& parameters, SelectiveCopyingConfig& task) {
  parameters.at("length").get_to(task.length);
  parameters.at("n_data").get_to(task.n_data);
  parameters.at("n_token").get_to(task.n_token);
  parameters.at("n_noise").get_to(task.n_noise);
}

TaskConfig parse_parameters(const Manifest& manifest) {
  const std::optional<TaskKind> kind = value_of<TaskKind>(manifest.spec.task);
  if (!kind) {
    throw UsageError("task '" + manifest.spec.task + "' is unknown: one of " + all_names<TaskKind>());
  }
  const json parameters = json::parse(manifest.parameters);
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
    std::unique_ptr<Task> task = make_task(parse_parameters(manifest));
    const DataSpec& a = task->spec();
    const DataSpec& b = manifest.spec;
    if (task->parameters() == manifest.parameters && a.vocab_size == b.vocab_size &&
        a.padded_tokens == b.padded_tokens && a.target_kind == b.target_kind &&
        a.slice_columns == b.slice_columns) {
      return task;
    }
  } catch (const nlohmann::json::exception& error) {
    fault = error.what();
  } catch (const UsageError& error) {
    fault = error.what();
  }
  throw DataError(manifest_path(folder) + ": no task of this program made this dataset (" + fault +
                  "); generate it again (hax gen-data)");
}

TaskConfig task_config(const Manifest& manifest, const std::string& folder) {
  make_task(manifest, folder);  // throws where the parameters are none of ours
  return parse_parameters(manifest);
}

}  // namespace hax
