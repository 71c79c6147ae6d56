#include "data_gen/joint_recall.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data_gen/combinatorics.h"
#include "lib/base/error.h"

namespace hax {
namespace {

void require(bool condition, const std::string& key, const std::string& fault) {
  if (!condition) throw UsageError("task.joint_recall." + key + ": " + fault);
}

void require_range(const std::string& name, int64_t low, int64_t high) {
  require(low >= 1, name + "_min", "must be at least 1, found " + std::to_string(low));
  require(high >= low, name + "_max",
          "must be at least " + name + "_min = " + std::to_string(low) + ", found " + std::to_string(high));
  require(high <= 4096, name + "_max", "must be at most 4096, found " + std::to_string(high));
}

int64_t half_length(JointRecall::Size size) { return size.n_context * (2 * size.n_key + 1); }

}  // namespace

JointRecall::JointRecall(const JointRecallConfig& config) : config_(config) {
  require_range("n_context", config.n_context_min, config.n_context_max);
  require_range("n_key", config.n_key_min, config.n_key_max);
  require(config.n_value >= 2 && config.n_value <= 65536, "n_value",
          "must be in [2, 65536], found " + std::to_string(config.n_value));
  first_key_ = static_cast<int32_t>(kBias + config.n_value);
  first_context_ = static_cast<int32_t>(first_key_ + config.n_key_max);
  const int64_t needed = first_context_ + config.n_context_max;
  if (config.vocab_size == 0) config_.vocab_size = std::max(needed, kPaperVocabulary);
  require(config_.vocab_size >= needed, "vocab_size",
          "must be 0 or at least " + std::to_string(needed) + ", one more than the largest id; found " +
              std::to_string(config.vocab_size));
  require(config_.vocab_size <= INT32_MAX, "vocab_size", "must be below 2^31");

  spec_.task = "joint_recall";
  spec_.vocab_size = config_.vocab_size;
  spec_.padded_tokens = 2 * half_length({config.n_context_max, config.n_key_max}) + 2;
  spec_.target_kind = TargetKind::next_token;
  spec_.slice_columns = {"n_context", "n_key"};
  spec_.chance = 1.0 / static_cast<double>(config.n_value);
  const auto count = [](int64_t n) { return static_cast<int32_t>(n); };
  spec_.slots = {{"context", first_context_, count(config.n_context_max), false},
                 {"key", first_key_, count(config.n_key_max), false},
                 {"value", kBias, count(config.n_value), true}};
}

std::string JointRecall::parameters() const {
  return nlohmann::json{{"n_context_min", config_.n_context_min},
                        {"n_context_max", config_.n_context_max},
                        {"n_key_min", config_.n_key_min},
                        {"n_key_max", config_.n_key_max},
                        {"n_value", config_.n_value},
                        {"vocab_size", config_.vocab_size}}
      .dump();
}

int64_t JointRecall::sizes() const {
  return (config_.n_context_max - config_.n_context_min + 1) * (config_.n_key_max - config_.n_key_min + 1);
}

JointRecall::Size JointRecall::size(int64_t size) const {
  const int64_t key_sizes = config_.n_key_max - config_.n_key_min + 1;
  return {config_.n_context_min + size / key_sizes, config_.n_key_min + size % key_sizes};
}

std::string JointRecall::size_name(int64_t index) const {
  const Size s = size(index);
  return "n_context " + std::to_string(s.n_context) + ", n_key " + std::to_string(s.n_key);
}

double JointRecall::log2_distinct(int64_t index) const {
  // n_value^(c k) tables, and for each half c! orders of contexts with k! orders of keys in each.
  const Size s = size(index);
  const auto contexts = static_cast<double>(s.n_context);
  const auto entries = static_cast<double>(s.n_context * s.n_key);
  return entries * std::log2(static_cast<double>(config_.n_value)) +
         2.0 * (log2_factorial(s.n_context) + contexts * log2_factorial(s.n_key));
}

std::vector<int32_t> JointRecall::scored_positions(Size size) {
  std::vector<int32_t> result;
  int64_t position = half_length(size) + 2;
  for (int64_t block = 0; block < size.n_context; ++block, ++position) {
    for (int64_t key = 0; key < size.n_key; ++key, position += 2) {
      result.push_back(static_cast<int32_t>(position + 1));
    }
  }
  return result;
}

void JointRecall::example(RandomStream& random, int64_t index, Example& result) const {
  const auto [contexts, keys] = size(size_at(index));
  const auto entries = static_cast<size_t>(contexts * keys);
  std::vector<int32_t> scratch(entries + static_cast<size_t>(contexts + keys));
  int32_t* const table = scratch.data();  // (contexts, keys) value tokens
  int32_t* const context_order = table + entries;
  int32_t* const key_order = context_order + contexts;
  for (size_t i = 0; i < entries; ++i) {
    table[i] = kBias + static_cast<int32_t>(random.below(static_cast<uint32_t>(config_.n_value)));
  }

  const int64_t half = half_length({contexts, keys});
  result.tokens.resize(static_cast<size_t>(2 * half + 2));
  result.scored.resize(entries);
  result.targets.resize(entries);
  result.slices.assign({static_cast<int32_t>(contexts), static_cast<int32_t>(keys)});
  int32_t* const tokens = result.tokens.data();
  int32_t* scored = result.scored.data();
  int32_t* target = result.targets.data();
  int32_t at = 0;
  for (const bool asking : {false, true}) {
    tokens[at++] = asking ? kSeparator : kBos;
    permutation(random, contexts, context_order);
    for (int64_t block = 0; block < contexts; ++block) {
      const int32_t context = context_order[block];
      const int32_t* const row = table + context * keys;
      tokens[at++] = first_context_ + context;
      permutation(random, keys, key_order);
      for (int64_t i = 0; i < keys; ++i) {
        const int32_t key = key_order[i];
        if (asking) {
          *scored++ = at;
          *target++ = row[key];
        }
        tokens[at++] = first_key_ + key;
        tokens[at++] = row[key];
      }
    }
  }
}

JointRecall::Size JointRecall::size_of(const std::vector<int32_t>& tokens) const {
  const auto separator = std::find(tokens.begin(), tokens.end(), kSeparator) - tokens.begin();
  if (separator == static_cast<int64_t>(tokens.size()) || separator < 2) return {};
  int64_t keys = 0;
  while (2 + 2 * keys < separator && is_key(tokens[static_cast<size_t>(2 + 2 * keys)])) ++keys;
  const Size result = {(separator - 1) / (2 * keys + 1), keys};
  return keys > 0 && half_length(result) == separator - 1 ? result : Size{};
}

std::string JointRecall::fault(const Example& example) const {
  const Size s = size_of(example.tokens);
  if (s.n_context == 0) return "the first half is no table of contexts, keys and values up to a SEP (4)";
  if (s.n_context < config_.n_context_min || s.n_context > config_.n_context_max ||
      s.n_key < config_.n_key_min || s.n_key > config_.n_key_max) {
    return "a table of " + std::to_string(s.n_context) + " contexts and " + std::to_string(s.n_key) +
           " keys, outside the task's sizes";
  }
  const int64_t length = 2 * half_length(s) + 2;
  if (static_cast<int64_t>(example.tokens.size()) != length) {
    return std::to_string(example.tokens.size()) + " tokens, a table of this size makes " +
           std::to_string(length);
  }
  const auto wrong = [&](int64_t position, const std::string& wanted) {
    return "token " + std::to_string(example.tokens[static_cast<size_t>(position)]) + " at position " +
           std::to_string(position) + " should be " + wanted;
  };
  std::vector<int32_t> table(static_cast<size_t>(s.n_context * s.n_key));
  std::vector<int32_t> targets;
  int64_t at = 0;
  for (const bool asking : {false, true}) {
    const int32_t opening = asking ? kSeparator : kBos;
    if (example.tokens[static_cast<size_t>(at)] != opening) return wrong(at, std::to_string(opening));
    ++at;
    std::vector<bool> context_seen(static_cast<size_t>(s.n_context));
    for (int64_t block = 0; block < s.n_context; ++block) {
      const int64_t context = example.tokens[static_cast<size_t>(at)] - first_context_;
      if (context < 0 || context >= s.n_context || context_seen[static_cast<size_t>(context)]) {
        return wrong(at, "a context not yet used in its half");
      }
      context_seen[static_cast<size_t>(context)] = true;
      ++at;
      std::vector<bool> key_seen(static_cast<size_t>(s.n_key));
      for (int64_t i = 0; i < s.n_key; ++i, at += 2) {
        const int64_t key = example.tokens[static_cast<size_t>(at)] - first_key_;
        const int32_t value = example.tokens[static_cast<size_t>(at) + 1];
        if (key < 0 || key >= s.n_key || key_seen[static_cast<size_t>(key)]) {
          return wrong(at, "a key not yet used in its block");
        }
        key_seen[static_cast<size_t>(key)] = true;
        if (!is_value(value)) return wrong(at + 1, "a value");
        int32_t& entry = table[static_cast<size_t>(context * s.n_key + key)];
        if (asking && entry != value)
          return wrong(at + 1, std::to_string(entry) + ", as the first half says");
        entry = value;
        if (asking) targets.push_back(value);
      }
    }
  }
  if (example.scored != scored_positions(s))
    return "the scored positions are not the keys of the second half";
  if (example.targets != targets) return "the targets are not the tokens after the scored positions";
  const std::vector<int32_t> slices = {static_cast<int32_t>(s.n_context), static_cast<int32_t>(s.n_key)};
  if (example.slices != slices) return "the slices are not the table's size";
  return "";
}

std::vector<Role> JointRecall::roles(const Example& example) const {
  std::vector<Role> result;
  bool asking = false;
  for (int32_t token : example.tokens) {
    if (token == kSeparator) asking = true;
    result.push_back(token == kBos         ? Role::bos
                     : token == kSeparator ? Role::separator
                     : is_context(token)   ? (asking ? Role::query_context : Role::context)
                     : is_key(token)       ? (asking ? Role::query_key : Role::key)
                                           : (asking ? Role::answer : Role::value));
  }
  return result;
}

std::string JointRecall::symbol(int32_t token, Role) const {
  if (token == kBos) return "BOS";
  if (token == kSeparator) return "SEP";
  if (is_context(token)) return "c" + std::to_string(token - first_context_);
  if (is_key(token)) return "k" + std::to_string(token - first_key_);
  if (is_value(token)) return "v" + std::to_string(token - kBias);
  return std::to_string(token);
}

JointRecall::Reading JointRecall::read(const Example& example) const {
  // Left to right, like a model: the table up to SEP, then at each question the context that was named last.
  const std::vector<int32_t>& tokens = example.tokens;
  Reading result;
  result.position.assign(static_cast<size_t>(config_.n_context_max * config_.n_key_max), -1);
  int64_t row = 0;
  bool asking = false;
  size_t next = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] == kSeparator) asking = true;
    if (is_context(tokens[i])) row = (tokens[i] - first_context_) * config_.n_key_max;
    if (!asking && is_value(tokens[i]) && i > 0 && is_key(tokens[i - 1])) {
      result.position[static_cast<size_t>(row + tokens[i - 1] - first_key_)] = static_cast<int32_t>(i);
    }
    if (next < example.scored.size() && static_cast<size_t>(example.scored[next]) == i) {
      result.asked.push_back(is_key(tokens[i]) ? row + tokens[i] - first_key_ : -1);
      ++next;
    }
  }
  return result;
}

std::vector<int32_t> JointRecall::sources(const Example& example) const {
  const Reading reading = read(example);
  std::vector<int32_t> result;
  for (int64_t entry : reading.asked) {
    result.push_back(entry < 0 ? -1 : reading.position[static_cast<size_t>(entry)]);
  }
  return result;
}

std::vector<int32_t> JointRecall::oracle(const Example& example) const {
  std::vector<int32_t> answers = sources(example);
  for (int32_t& answer : answers) {
    if (answer >= 0) answer = example.tokens[static_cast<size_t>(answer)];
  }
  return answers;
}

std::vector<std::string> JointRecall::error_kinds() const {
  return {"a value of the right key in another context", "a value of the same context", "another value",
          "not a value"};
}

size_t JointRecall::error_kind(const Example& example, size_t i, int32_t predicted) const {
  require_error(example, i, predicted);
  if (!is_value(predicted)) return 3;
  const Reading reading = read(example);
  const int64_t asked = reading.asked[i];
  size_t kind = 2;
  for (int64_t entry = 0; entry < static_cast<int64_t>(reading.position.size()); ++entry) {
    const int32_t position = reading.position[static_cast<size_t>(entry)];
    if (position < 0 || example.tokens[static_cast<size_t>(position)] != predicted) continue;
    if (entry % config_.n_key_max == asked % config_.n_key_max) return 0;
    if (entry / config_.n_key_max == asked / config_.n_key_max) kind = 1;
  }
  return kind;
}

}  // namespace hax
