#include "data_gen/mqar_forgetting.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "data_gen/combinatorics.h"
#include "lib/config/check.h"

namespace hax {
namespace {

MqarForgettingConfig valid(const MqarForgettingConfig& config) {
  TaskConfig task;
  task.name = TaskKind::mqar_forgetting;
  task.mqar_forgetting = config;
  require_valid(task);
  return config;
}

}  // namespace

MqarForgetting::MqarForgetting(const MqarForgettingConfig& config)
    : KeyValueRecall({"mqar_forgetting",
                      1,
                      valid(config).vocab_size,
                      config.power_a,
                      config.random_non_queries,
                      {"num_kv_pairs", "num_updates", "input_seq_len"},
                      config.vocab_size - config.vocab_size / 2},
                     {{config.input_seq_len,
                       config.num_kv_pairs,
                       config.num_kv_pairs + config.num_updates,
                       {static_cast<int32_t>(config.num_kv_pairs), static_cast<int32_t>(config.num_updates),
                        static_cast<int32_t>(config.input_seq_len)},
                       {}}},
                     SizeSchedule({1})),
      config_(config) {}

std::string MqarForgetting::parameters() const {
  return nlohmann::json{
      {"vocab_size", config_.vocab_size},     {"input_seq_len", config_.input_seq_len},
      {"num_kv_pairs", config_.num_kv_pairs}, {"num_updates", config_.num_updates},
      {"power_a", config_.power_a},           {"random_non_queries", config_.random_non_queries}}
      .dump();
}

double MqarForgetting::log2_contexts(const Shape& shape) const {
  const int64_t half = config_.vocab_size / 2;
  const int64_t values = config_.vocab_size - half;
  return log2_falling(half - 1, shape.keys) + log2_falling(values, shape.keys) +
         log2_falling(shape.keys, config_.num_updates) +
         static_cast<double>(config_.num_updates) * std::log2(static_cast<double>(values - 1));
}

void MqarForgetting::draw_context(RandomStream& random, const Shape& shape, int32_t* tokens) const {
  const int64_t half = config_.vocab_size / 2;
  std::vector<int32_t> keys;
  std::vector<int32_t> values;
  std::vector<int32_t> updated;
  distinct(random, 1, half, shape.keys, keys);
  distinct(random, half, config_.vocab_size, shape.keys, values);
  distinct(random, 0, shape.keys, config_.num_updates, updated);
  for (size_t i = 0; i < keys.size(); ++i) {
    tokens[2 * i] = keys[i];
    tokens[2 * i + 1] = values[i];
  }
  tokens += 2 * keys.size();
  for (int32_t key : updated) {
    const int32_t old = values[static_cast<size_t>(key)];
    // Uniform over the values but the old one.
    auto value =
        static_cast<int32_t>(half + random.below(static_cast<uint32_t>(config_.vocab_size - half - 1)));
    if (value >= old) ++value;
    *tokens++ = keys[static_cast<size_t>(key)];
    *tokens++ = value;
  }
}

std::string MqarForgetting::context_fault(const std::vector<int32_t>& tokens, const Shape& shape) const {
  const int64_t half = config_.vocab_size / 2;
  std::unordered_map<int32_t, int32_t> value;
  std::set<int32_t> values;
  std::set<int32_t> updated;
  for (int64_t i = 0; i < shape.context_length; i += 2) {
    const auto at = static_cast<size_t>(i);
    const int32_t key = tokens[at];
    if (key < 1 || key >= half) return wrong(tokens, i, "a key");
    if (!is_value(tokens[at + 1])) return wrong(tokens, i + 1, "a value");
    if (i < 2 * shape.keys) {
      if (!value.emplace(key, tokens[at + 1]).second) return wrong(tokens, i, "a new key");
      if (!values.insert(tokens[at + 1]).second) return wrong(tokens, i + 1, "unlike every value before");
    } else {
      if (value.count(key) == 0) return wrong(tokens, i, "a key of the pairs before");
      if (!updated.insert(key).second) return wrong(tokens, i, "a key not yet updated");
      if (value.at(key) == tokens[at + 1]) return wrong(tokens, i + 1, "unlike the key's old value");
    }
  }
  return "";
}

std::string MqarForgetting::symbol(int32_t token, Role role) const {
  if (role == Role::filler) return std::to_string(token);
  const int64_t half = config_.vocab_size / 2;
  return token < half ? "k" + std::to_string(token) : "v" + std::to_string(token - half);
}

std::vector<std::string> MqarForgetting::error_kinds() const {
  return {"an old value of the key", "a value of another key", "another value", "not a value"};
}

}  // namespace hax
