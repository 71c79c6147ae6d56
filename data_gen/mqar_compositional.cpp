#include "data_gen/mqar_compositional.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "data_gen/combinatorics.h"
#include "lib/config/check.h"

namespace hax {
namespace {

MqarCompositionalConfig valid(const MqarCompositionalConfig& config) {
  TaskConfig task;
  task.name = TaskKind::mqar_compositional;
  task.mqar_compositional = config;
  require_valid(task);
  return config;
}

}  // namespace

MqarCompositional::MqarCompositional(const MqarCompositionalConfig& config)
    : KeyValueRecall(
          {"mqar_compositional",
           2,
           valid(config).vocab_size,
           config.power_a,
           config.random_non_queries,
           {"num_kv_pairs", "input_seq_len"},
           config.vocab_size - 2 * (config.vocab_size / 3)},
          {{config.input_seq_len,
            config.num_kv_pairs,
            config.num_kv_pairs,
            {static_cast<int32_t>(config.num_kv_pairs), static_cast<int32_t>(config.input_seq_len)},
            {}}},
          SizeSchedule({1})),
      config_(config),
      third_(config.vocab_size / 3),
      side_(std::llround(std::sqrt(static_cast<double>(config.num_kv_pairs)))) {}

std::string MqarCompositional::parameters() const {
  return nlohmann::json{{"vocab_size", config_.vocab_size},
                        {"input_seq_len", config_.input_seq_len},
                        {"num_kv_pairs", config_.num_kv_pairs},
                        {"power_a", config_.power_a},
                        {"random_non_queries", config_.random_non_queries}}
      .dump();
}

double MqarCompositional::log2_contexts(const Shape& shape) const {
  return log2_choose(third_ - 1, side_) + log2_choose(third_, side_) + log2_factorial(shape.keys) +
         log2_falling(config_.vocab_size - 2 * third_, shape.keys);
}

void MqarCompositional::draw_context(RandomStream& random, const Shape& shape, int32_t* tokens) const {
  std::vector<int32_t> first;
  std::vector<int32_t> second;
  std::vector<int32_t> order(static_cast<size_t>(shape.keys));
  std::vector<int32_t> values;
  distinct(random, 1, third_, side_, first);
  distinct(random, third_, 2 * third_, side_, second);
  permutation(random, shape.keys, order.data());
  distinct(random, 2 * third_, config_.vocab_size, shape.keys, values);
  for (size_t i = 0; i < order.size(); ++i) {
    tokens[3 * i] = first[static_cast<size_t>(order[i] / side_)];
    tokens[3 * i + 1] = second[static_cast<size_t>(order[i] % side_)];
    tokens[3 * i + 2] = values[i];
  }
}

std::string MqarCompositional::context_fault(const std::vector<int32_t>& tokens, const Shape& shape) const {
  std::set<int32_t> first;
  std::set<int32_t> second;
  std::set<std::pair<int32_t, int32_t>> keys;
  std::set<int32_t> values;
  for (int64_t i = 0; i < shape.context_length; i += 3) {
    const auto at = static_cast<size_t>(i);
    if (tokens[at] < 1 || tokens[at] >= third_) return wrong(tokens, i, "a first token of a key");
    if (tokens[at + 1] < third_ || tokens[at + 1] >= 2 * third_) {
      return wrong(tokens, i + 1, "a second token of a key");
    }
    if (!is_value(tokens[at + 2])) return wrong(tokens, i + 2, "a value");
    if (!keys.insert({tokens[at], tokens[at + 1]}).second) return wrong(tokens, i + 1, "part of a new key");
    if (!values.insert(tokens[at + 2]).second) return wrong(tokens, i + 2, "unlike every value before");
    first.insert(tokens[at]);
    second.insert(tokens[at + 1]);
  }
  // So many distinct keys of s x s tokens are all of them.
  const auto side = static_cast<size_t>(side_);
  if (first.size() != side || second.size() != side) {
    return "the keys are made of " + std::to_string(first.size()) + " first and " +
           std::to_string(second.size()) + " second tokens instead of " + std::to_string(side_) + " each";
  }
  return "";
}

std::string MqarCompositional::symbol(int32_t token, Role role) const {
  if (role == Role::filler) return std::to_string(token);
  if (token < third_) return "a" + std::to_string(token);
  if (token < 2 * third_) return "b" + std::to_string(token - third_);
  return "v" + std::to_string(token - 2 * third_);
}

std::vector<std::string> MqarCompositional::error_kinds() const {
  return {"a value of a key that shares a token", "a value of another key", "another value", "not a value"};
}

}  // namespace hax
