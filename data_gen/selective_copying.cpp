#include "data_gen/selective_copying.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data_gen/combinatorics.h"
#include "lib/config/check.h"

namespace hax {

SelectiveCopying::SelectiveCopying(const SelectiveCopyingConfig& config) : config_(config) {
  TaskConfig task;
  task.name = TaskKind::selective_copying;
  task.selective_copying = config;
  require_valid(task);
  spec_.task = "selective_copying";
  spec_.vocab_size = config.ids();
  spec_.padded_tokens = config.padded_tokens();
  spec_.target_kind = TargetKind::next_token;
  spec_.slice_columns = {"n_data", "length"};
  spec_.chance = 1.0 / static_cast<double>(config.n_token);
}

std::string SelectiveCopying::parameters() const {
  return nlohmann::json{{"length", config_.length},
                        {"n_data", config_.n_data},
                        {"n_token", config_.n_token},
                        {"n_noise", config_.n_noise}}
      .dump();
}

std::string SelectiveCopying::size_name(int64_t) const {
  return "n_data " + std::to_string(config_.n_data) + ", length " + std::to_string(config_.length);
}

double SelectiveCopying::log2_distinct(int64_t) const {
  const auto data = static_cast<double>(config_.n_data);
  return log2_choose(config_.length, config_.n_data) +
         data * std::log2(static_cast<double>(config_.n_token)) +
         (static_cast<double>(config_.length) - data) * std::log2(static_cast<double>(config_.n_noise));
}

void SelectiveCopying::example(RandomStream& random, int64_t, Example& result) const {
  const auto token = [&](int64_t first, int64_t count) {
    return static_cast<int32_t>(first + random.below(static_cast<uint32_t>(count)));
  };
  result.tokens.resize(static_cast<size_t>(spec_.padded_tokens));
  result.scored.resize(static_cast<size_t>(config_.n_data));
  result.targets.clear();
  result.slices = {static_cast<int32_t>(config_.n_data), static_cast<int32_t>(config_.length)};
  int64_t wanted = config_.n_data;
  for (int64_t i = 0; i < config_.length; ++i) {
    // Of the positions left, `wanted` are data, every choice of them as likely (selection sampling).
    const bool data = random.below(static_cast<uint32_t>(config_.length - i)) < wanted;
    int32_t& place = result.tokens[static_cast<size_t>(i)];
    place = data ? token(kBias, config_.n_token) : token(kBias + config_.n_token, config_.n_noise);
    if (!data) continue;
    result.targets.push_back(place);
    --wanted;
  }
  result.tokens[static_cast<size_t>(config_.length)] = kSeparator;
  for (size_t i = 0; i < result.targets.size(); ++i) {
    const auto position = static_cast<size_t>(config_.length) + i;
    result.scored[i] = static_cast<int32_t>(position);
    result.tokens[position + 1] = result.targets[i];
  }
}

std::string SelectiveCopying::fault(const Example& example) const {
  const std::vector<int32_t>& tokens = example.tokens;
  if (static_cast<int64_t>(tokens.size()) != spec_.padded_tokens) {
    return std::to_string(tokens.size()) + " tokens instead of " + std::to_string(spec_.padded_tokens);
  }
  const auto wrong = [&](size_t position, const std::string& wanted) {
    return "token " + std::to_string(tokens[position]) + " at position " + std::to_string(position) +
           " should be " + wanted;
  };
  const auto length = static_cast<size_t>(config_.length);
  std::vector<int32_t> data;
  for (size_t i = 0; i < length; ++i) {
    if (is_data(tokens[i])) {
      data.push_back(tokens[i]);
    } else if (!is_noise(tokens[i])) {
      return wrong(i, "data or noise");
    }
  }
  if (static_cast<int64_t>(data.size()) != config_.n_data) {
    return std::to_string(data.size()) + " data tokens before the separator instead of " +
           std::to_string(config_.n_data);
  }
  if (tokens[length] != kSeparator) return wrong(length, "SEP (4)");
  std::vector<int32_t> scored;
  for (size_t i = 0; i < data.size(); ++i) {
    if (tokens[length + 1 + i] != data[i]) {
      return wrong(length + 1 + i, std::to_string(data[i]) + ", the next data token");
    }
    scored.push_back(static_cast<int32_t>(length + i));
  }
  if (example.scored != scored) return "the scored positions are not SEP and the copied tokens but the last";
  if (example.targets != data) return "the targets are not the data tokens";
  if (example.slices !=
      std::vector<int32_t>{static_cast<int32_t>(config_.n_data), static_cast<int32_t>(config_.length)}) {
    return "the slices are not (n_data, length)";
  }
  return "";
}

std::vector<Role> SelectiveCopying::roles(const Example& example) const {
  std::vector<Role> result;
  bool copying = false;
  for (int32_t token : example.tokens) {
    if (token == kSeparator) copying = true;
    result.push_back(token == kSeparator ? Role::separator
                     : copying           ? Role::answer
                     : is_data(token)    ? Role::data
                                         : Role::filler);
  }
  return result;
}

std::string SelectiveCopying::symbol(int32_t token, Role) const {
  if (token == kSeparator) return "SEP";
  return is_data(token) ? "d" + std::to_string(token - kBias) : std::to_string(token);
}

std::vector<int32_t> SelectiveCopying::sources(const Example& example) const {
  // Left to right: the data before SEP, then one after the other.
  std::vector<int32_t> data;
  std::vector<int32_t> result;
  bool copying = false;
  size_t turn = 0;
  size_t next = 0;
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    if (copying) ++turn;
    if (example.tokens[i] == kSeparator) copying = true;
    if (!copying && is_data(example.tokens[i])) data.push_back(static_cast<int32_t>(i));
    if (next < example.scored.size() && static_cast<size_t>(example.scored[next]) == i) {
      result.push_back(copying && turn < data.size() ? data[turn] : -1);
      ++next;
    }
  }
  return result;
}

std::vector<int32_t> SelectiveCopying::oracle(const Example& example) const {
  std::vector<int32_t> answers = sources(example);
  for (int32_t& answer : answers) {
    if (answer >= 0) answer = example.tokens[static_cast<size_t>(answer)];
  }
  return answers;
}

std::vector<std::string> SelectiveCopying::error_kinds() const {
  return {"a data token out of its turn", "another data token", "not a data token"};
}

size_t SelectiveCopying::error_kind(const Example& example, size_t i, int32_t predicted) const {
  require_error(example, i, predicted);
  if (!is_data(predicted)) return 2;
  const auto end = example.tokens.begin() + config_.length;
  return std::find(example.tokens.begin(), end, predicted) != end ? 0 : 1;
}

}  // namespace hax
