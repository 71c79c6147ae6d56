#include "data_gen/registry.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "data_gen/joint_recall.h"
#include "data_gen/mqar.h"
#include "lib/base/error.h"

namespace hax {
namespace {

TaskConfig parse_parameters(const Manifest& manifest) {
  const nlohmann::json parameters = nlohmann::json::parse(manifest.parameters);
  TaskConfig config;
  if (manifest.spec.task == "joint_recall") {
    JointRecallConfig& task = config.joint_recall;
    config.name = TaskKind::joint_recall;
    parameters.at("n_context_min").get_to(task.n_context_min);
    parameters.at("n_context_max").get_to(task.n_context_max);
    parameters.at("n_key_min").get_to(task.n_key_min);
    parameters.at("n_key_max").get_to(task.n_key_max);
    parameters.at("n_value").get_to(task.n_value);
    parameters.at("vocab_size").get_to(task.vocab_size);
  } else if (manifest.spec.task == "mqar") {
    MqarConfig& task = config.mqar;
    config.name = TaskKind::mqar;
    parameters.at("vocab_size").get_to(task.vocab_size);
    parameters.at("input_seq_len").get_to(task.input_seq_len);
    parameters.at("num_kv_pairs").get_to(task.num_kv_pairs);
    parameters.at("power_a").get_to(task.power_a);
    parameters.at("random_non_queries").get_to(task.random_non_queries);
  } else {
    throw UsageError("task '" + manifest.spec.task + "' is unknown: one of joint_recall, mqar");
  }
  return config;
}

}  // namespace

std::unique_ptr<Task> make_task(const TaskConfig& config) {
  switch (config.name) {
    case TaskKind::joint_recall:
      return std::make_unique<JointRecall>(config.joint_recall);
    case TaskKind::mqar:
      return std::make_unique<Mqar>(config.mqar);
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
