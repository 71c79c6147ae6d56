#include "data_gen/mqar.h"

#include <nlohmann/json.hpp>

#include "data_gen/combinatorics.h"
#include "lib/config/check.h"

namespace hax {
namespace {

MqarConfig valid(const MqarConfig& config) {
  TaskConfig task;
  task.name = TaskKind::mqar;
  task.mqar = config;
  require_valid(task);
  return config;
}

std::vector<TokenSlot> token_slots(const MqarConfig& config) {
  const auto half = static_cast<int32_t>(config.vocab_size / 2);
  return {{"key", 1, half - 1, false}, {"value", half, static_cast<int32_t>(config.vocab_size) - half, true}};
}

}  // namespace

std::vector<KeyValueRecall::Shape> Mqar::shapes(const MqarConfig& config) {
  std::vector<Shape> result;
  for (size_t i = 0; i < config.input_seq_len.size(); ++i) {
    const int64_t pairs = config.num_kv_pairs[i];
    const int64_t length = config.input_seq_len[i];
    result.push_back({length, pairs, pairs, {static_cast<int32_t>(pairs), static_cast<int32_t>(length)}, {}});
  }
  return result;
}

// Braces, for their order: the shapes rely on valid lists.
Mqar::Mqar(const MqarConfig& config)
    : KeyValueRecall{{"mqar",
                      1,
                      valid(config).vocab_size,
                      config.power_a,
                      config.random_non_queries,
                      {"num_kv_pairs", "input_seq_len"},
                      config.vocab_size - config.vocab_size / 2,
                      token_slots(config)},
                     shapes(config),
                     SizeSchedule(config.weights.empty()
                                      ? std::vector<int64_t>(config.input_seq_len.size(), 1)
                                      : config.weights)},
      config_(config) {}

std::string Mqar::parameters() const {
  nlohmann::json json = {{"vocab_size", config_.vocab_size},
                         {"power_a", config_.power_a},
                         {"random_non_queries", config_.random_non_queries}};
  if (config_.input_seq_len.size() == 1) {
    json["input_seq_len"] = config_.input_seq_len[0];
    json["num_kv_pairs"] = config_.num_kv_pairs[0];
  } else {
    json["input_seq_len"] = config_.input_seq_len;
    json["num_kv_pairs"] = config_.num_kv_pairs;
    json["weights"] = config_.weights;
  }
  return json.dump();
}

double Mqar::log2_contexts(const Shape& shape) const {
  const int64_t half = config_.vocab_size / 2;
  return log2_falling(half - 1, shape.keys) + log2_falling(config_.vocab_size - half, shape.keys);
}

void Mqar::draw_context(RandomStream& random, const Shape& shape, int32_t* tokens) const {
  const int64_t half = config_.vocab_size / 2;
  std::vector<int32_t> keys;
  std::vector<int32_t> values;
  distinct(random, 1, half, shape.keys, keys);
  distinct(random, half, config_.vocab_size, shape.keys, values);
  for (size_t i = 0; i < keys.size(); ++i) {
    tokens[2 * i] = keys[i];
    tokens[2 * i + 1] = values[i];
  }
}

std::string Mqar::context_fault(const std::vector<int32_t>& tokens, const Shape& shape) const {
  const int64_t half = config_.vocab_size / 2;
  std::vector<bool> seen(static_cast<size_t>(config_.vocab_size));
  for (int64_t i = 0; i < shape.context_length; ++i) {
    const int64_t token = tokens[static_cast<size_t>(i)];
    const bool key = i % 2 == 0;
    if (key && (token < 1 || token >= half)) return wrong(tokens, i, "a key");
    if (!key && token < half) return wrong(tokens, i, "a value");
    if (seen[static_cast<size_t>(token)]) return wrong(tokens, i, "unlike every key and value before");
    seen[static_cast<size_t>(token)] = true;
  }
  return "";
}

std::string Mqar::symbol(int32_t token, Role role) const {
  if (role == Role::filler) return std::to_string(token);
  const int64_t half = config_.vocab_size / 2;
  return token < half ? "k" + std::to_string(token) : "v" + std::to_string(token - half);
}

std::vector<std::string> Mqar::error_kinds() const {
  return {"a value of another key", "another value", "not a value"};
}

}  // namespace hax
