#include "data_gen/mqar.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "lib/base/error.h"

namespace hax {
namespace {

void require(bool condition, const std::string& key, const std::string& fault) {
  if (!condition) throw UsageError("task.mqar." + key + ": " + fault);
}

// `count` distinct numbers of [first, last) in random order. At most half of the range is ever asked for,
// so rejection needs at most two draws a number.
void distinct(RandomStream& random, int64_t first, int64_t last, int64_t count, std::vector<int32_t>& out) {
  std::vector<bool> taken(static_cast<size_t>(last - first));
  out.clear();
  while (static_cast<int64_t>(out.size()) < count) {
    const uint32_t drawn = random.below(static_cast<uint32_t>(last - first));
    if (taken[drawn]) continue;
    taken[drawn] = true;
    out.push_back(static_cast<int32_t>(first + drawn));
  }
}

constexpr double kNever = -std::numeric_limits<double>::infinity();

double log2_add(double a, double b) {
  const double high = std::max(a, b);
  return high == kNever ? kNever : high + std::log2(std::exp2(a - high) + std::exp2(b - high));
}

// log2 of n (n - 1) ... (n - k + 1)
double log2_falling(int64_t n, int64_t k) {
  double sum = 0.0;
  for (int64_t i = 0; i < k; ++i) sum += std::log2(static_cast<double>(n - i));
  return sum;
}

}  // namespace

Mqar::Mqar(const MqarConfig& config) : config_(config) {
  const int64_t length = config.input_seq_len;
  require(config.num_kv_pairs >= 1, "num_kv_pairs",
          "must be at least 1, found " + std::to_string(config.num_kv_pairs));
  require(length % 2 == 0, "input_seq_len", "must be even, found " + std::to_string(length));
  require(length <= (int64_t{1} << 24), "input_seq_len",
          "must be at most 2^24, found " + std::to_string(length));
  require(config.num_kv_pairs <= length / 4, "num_kv_pairs",
          "must be at most input_seq_len / 4 = " + std::to_string(length / 4) + ", found " +
              std::to_string(config.num_kv_pairs));
  require(config.vocab_size > length && config.vocab_size <= INT32_MAX, "vocab_size",
          "must be above input_seq_len = " + std::to_string(length) + " and below 2^31, found " +
              std::to_string(config.vocab_size));
  require(std::isfinite(config.power_a), "power_a", "must be finite");
  for (int64_t g = 0; g < slots(); ++g) {
    mean_wait_.push_back(std::pow(static_cast<double>(g + 1), 1.0 - config.power_a));
    require(std::isnormal(mean_wait_.back()), "power_a", "is too far from 1 for this length");
  }
  spec_.task = "mqar";
  spec_.vocab_size = config.vocab_size;
  spec_.padded_tokens = length;
  spec_.target_kind = TargetKind::label;
  spec_.slice_columns = {"num_kv_pairs", "input_seq_len"};
  const int64_t values = config.vocab_size - config.vocab_size / 2;
  spec_.chance = 1.0 / static_cast<double>(values);
}

std::string Mqar::parameters() const {
  return nlohmann::json{{"vocab_size", config_.vocab_size},
                        {"input_seq_len", config_.input_seq_len},
                        {"num_kv_pairs", config_.num_kv_pairs},
                        {"power_a", config_.power_a},
                        {"random_non_queries", config_.random_non_queries}}
      .dump();
}

std::string Mqar::size_name(int64_t) const {
  return "num_kv_pairs " + std::to_string(config_.num_kv_pairs) + ", input_seq_len " +
         std::to_string(config_.input_seq_len);
}

double Mqar::log2_distinct(int64_t) const {
  const int64_t keys = config_.num_kv_pairs;
  const int64_t vocabulary = config_.vocab_size;
  const double contexts =
      log2_falling(vocabulary / 2 - 1, keys) + log2_falling(vocabulary - vocabulary / 2, keys);
  if (!config_.random_non_queries) return contexts + log2_falling(slots(), keys);
  // Odd positions are free. Even ones spell any word over the vocabulary in which each key occurs:
  // ways[m] counts the words of the slots so far with m keys still to come.
  std::vector<double> ways(static_cast<size_t>(keys) + 1, kNever);
  ways[static_cast<size_t>(keys)] = 0.0;
  for (int64_t slot = 0; slot < slots(); ++slot) {
    for (int64_t missing = 0; missing <= keys; ++missing) {
      const auto m = static_cast<size_t>(missing);
      const double stays = ways[m] + std::log2(static_cast<double>(vocabulary - missing));
      const double met = missing < keys ? ways[m + 1] + std::log2(static_cast<double>(missing + 1)) : kNever;
      ways[m] = log2_add(stays, met);
    }
  }
  return contexts + ways[0] + static_cast<double>(slots()) * std::log2(static_cast<double>(vocabulary));
}

void Mqar::example(RandomStream& random, int64_t, Example& result) const {
  const int64_t pairs = config_.num_kv_pairs;
  const int64_t half = config_.vocab_size / 2;
  std::vector<int32_t> keys;
  std::vector<int32_t> values;
  distinct(random, 1, half, pairs, keys);
  distinct(random, half, config_.vocab_size, pairs, values);

  // Exponential waiting times with the slots' weights as rates: the order of the first K arrivals is that
  // of successive weighted draws without replacement, as Gumbel top-K is (-log of the waiting times).
  std::vector<std::pair<double, int32_t>> arrivals(static_cast<size_t>(slots()));
  for (size_t g = 0; g < arrivals.size(); ++g) {
    arrivals[g] = {-std::log(random.uniform()) * mean_wait_[g], static_cast<int32_t>(g)};
  }
  std::partial_sort(arrivals.begin(), arrivals.begin() + pairs, arrivals.end());

  result.tokens.assign(static_cast<size_t>(config_.input_seq_len), 0);
  std::vector<std::pair<int32_t, int32_t>> labels(static_cast<size_t>(pairs));  // position, value
  for (size_t i = 0; i < static_cast<size_t>(pairs); ++i) {
    const auto position = static_cast<int32_t>(context_length() + int64_t{2} * arrivals[i].second);
    result.tokens[2 * i] = keys[i];
    result.tokens[2 * i + 1] = values[i];
    result.tokens[static_cast<size_t>(position)] = keys[i];
    labels[i] = {position, values[i]};
  }
  std::sort(labels.begin(), labels.end());
  result.scored.resize(labels.size());
  result.targets.resize(labels.size());
  for (size_t i = 0; i < labels.size(); ++i) {
    result.scored[i] = labels[i].first;
    result.targets[i] = labels[i].second;
  }
  result.slices.assign({static_cast<int32_t>(pairs), static_cast<int32_t>(config_.input_seq_len)});
  if (config_.random_non_queries) {
    for (int32_t& token : result.tokens) {
      if (token == 0) token = static_cast<int32_t>(random.below(static_cast<uint32_t>(config_.vocab_size)));
    }
  }
}

std::string Mqar::fault(const Example& example) const {
  const int64_t pairs = config_.num_kv_pairs;
  const int64_t half = config_.vocab_size / 2;
  const auto& tokens = example.tokens;
  if (static_cast<int64_t>(tokens.size()) != config_.input_seq_len) {
    return std::to_string(tokens.size()) + " tokens instead of " + std::to_string(config_.input_seq_len);
  }
  const auto wrong = [&](int64_t position, const std::string& wanted) {
    return "token " + std::to_string(tokens[static_cast<size_t>(position)]) + " at position " +
           std::to_string(position) + " should be " + wanted;
  };
  std::vector<bool> seen(static_cast<size_t>(config_.vocab_size));
  for (int64_t i = 0; i < config_.input_seq_len; ++i) {
    const int64_t token = tokens[static_cast<size_t>(i)];
    if (token < 0 || token >= config_.vocab_size) return wrong(i, "inside the vocabulary");
    if (i >= context_length()) continue;
    const bool key = i % 2 == 0;
    if (key && (token < 1 || token >= half)) return wrong(i, "a key");
    if (!key && token < half) return wrong(i, "a value");
    if (seen[static_cast<size_t>(token)]) return wrong(i, "unlike every key and value before");
    seen[static_cast<size_t>(token)] = true;
  }
  if (static_cast<int64_t>(example.scored.size()) != pairs ||
      example.targets.size() != example.scored.size()) {
    return std::to_string(example.scored.size()) + " scored positions and " +
           std::to_string(example.targets.size()) + " targets instead of one for each of " +
           std::to_string(pairs) + " keys";
  }
  std::vector<bool> asked(static_cast<size_t>(config_.vocab_size));
  int32_t previous = -1;
  for (size_t i = 0; i < example.scored.size(); ++i) {
    const int32_t position = example.scored[i];
    if (position <= previous || position < context_length() || position >= config_.input_seq_len ||
        position % 2 != 0) {
      return "scored position " + std::to_string(position) + " is no query slot, or out of order";
    }
    previous = position;
    const auto token = static_cast<size_t>(tokens[static_cast<size_t>(position)]);
    int64_t pair = 0;
    while (pair < pairs && tokens[static_cast<size_t>(2 * pair)] != static_cast<int32_t>(token)) ++pair;
    if (pair == pairs || asked[token]) return wrong(position, "a key of the context, asked once");
    asked[token] = true;
    if (example.targets[i] != tokens[static_cast<size_t>(2 * pair + 1)]) {
      return "target " + std::to_string(example.targets[i]) + " at position " + std::to_string(position) +
             " is not the value of its key";
    }
  }
  if (!config_.random_non_queries) {
    size_t next = 0;
    for (int64_t i = context_length(); i < config_.input_seq_len; ++i) {
      if (next < example.scored.size() && example.scored[next] == i) {
        ++next;
      } else if (tokens[static_cast<size_t>(i)] != 0) {
        return wrong(i, "0: it is no query");
      }
    }
  }
  const std::vector<int32_t> slices = {static_cast<int32_t>(pairs),
                                       static_cast<int32_t>(config_.input_seq_len)};
  if (example.slices != slices) return "the slices are not (num_kv_pairs, input_seq_len)";
  return "";
}

std::vector<Role> Mqar::roles(const Example& example) const {
  std::vector<Role> result(example.tokens.size(), Role::filler);
  for (int64_t i = 0; i < context_length(); ++i) {
    result[static_cast<size_t>(i)] = i % 2 == 0 ? Role::pair_key : Role::pair_value;
  }
  for (int32_t position : example.scored) result[static_cast<size_t>(position)] = Role::query;
  return result;
}

std::string Mqar::symbol(int32_t token, Role role) const {
  if (role == Role::filler) return std::to_string(token);
  const int64_t half = config_.vocab_size / 2;
  return token < half ? "k" + std::to_string(token) : "v" + std::to_string(token - half);
}

std::vector<int32_t> Mqar::sources(const Example& example) const {
  std::vector<int32_t> result;
  for (int32_t position : example.scored) {
    const int32_t key = example.tokens[static_cast<size_t>(position)];
    int32_t source = -1;
    for (int32_t i = 0; i < context_length() && source < 0; i += 2) {
      if (example.tokens[static_cast<size_t>(i)] == key) source = i + 1;
    }
    result.push_back(source);
  }
  return result;
}

std::vector<int32_t> Mqar::oracle(const Example& example) const {
  std::vector<int32_t> answers = sources(example);
  for (int32_t& answer : answers) {
    if (answer >= 0) answer = example.tokens[static_cast<size_t>(answer)];
  }
  return answers;
}

std::vector<std::string> Mqar::error_kinds() const {
  return {"a value of another key", "another value", "not a value"};
}

size_t Mqar::error_kind(const Example& example, size_t i, int32_t predicted) const {
  require_error(example, i, predicted);
  if (predicted < config_.vocab_size / 2 || predicted >= config_.vocab_size) return 2;
  for (int64_t at = 1; at < context_length(); at += 2) {
    if (example.tokens[static_cast<size_t>(at)] == predicted) return 0;
  }
  return 1;
}

}  // namespace hax
