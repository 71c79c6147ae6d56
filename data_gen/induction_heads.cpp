#include "data_gen/induction_heads.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/config/check.h"

namespace hax {

InductionHeads::InductionHeads(const InductionHeadsConfig& config) : config_(config) {
  TaskConfig task;
  task.name = TaskKind::induction_heads;
  task.induction_heads = config;
  require_valid(task);
  spec_.task = "induction_heads";
  spec_.vocab_size = config.ids();
  spec_.padded_tokens = config.length;
  spec_.target_kind = TargetKind::label;
  spec_.slice_columns = {"length"};
  spec_.chance = 1.0 / static_cast<double>(config.n_token);
}

std::string InductionHeads::parameters() const {
  return nlohmann::json{{"length", config_.length}, {"n_token", config_.n_token}}.dump();
}

std::string InductionHeads::size_name(int64_t) const { return "length " + std::to_string(config_.length); }

double InductionHeads::log2_distinct(int64_t) const {
  const auto free =
      static_cast<double>(config_.length - 2);  // positions of the special token, as of the rest
  return std::log2(free) + free * std::log2(static_cast<double>(config_.n_token));
}

void InductionHeads::example(RandomStream& random, int64_t, Example& result) const {
  const auto length = static_cast<size_t>(config_.length);
  const auto first = static_cast<size_t>(random.below(static_cast<uint32_t>(length - 2)));
  result.tokens.resize(length);
  for (size_t i = 0; i < length; ++i) {
    result.tokens[i] =
        i == first || i + 1 == length
            ? kSpecial
            : kBias + static_cast<int32_t>(random.below(static_cast<uint32_t>(config_.n_token)));
  }
  result.scored = {static_cast<int32_t>(length) - 1};
  result.targets = {result.tokens[first + 1]};
  result.slices = {static_cast<int32_t>(length)};
}

std::string InductionHeads::fault(const Example& example) const {
  const std::vector<int32_t>& tokens = example.tokens;
  if (static_cast<int64_t>(tokens.size()) != config_.length) {
    return std::to_string(tokens.size()) + " tokens instead of " + std::to_string(config_.length);
  }
  int64_t first = -1;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool end = i + 1 == tokens.size();
    const bool special = tokens[i] == kSpecial;
    const bool fits = end ? special && first >= 0
                          : is_ordinary(tokens[i]) || (special && first < 0 && i + 2 < tokens.size());
    if (!fits) {
      return "token " + std::to_string(tokens[i]) + " at position " + std::to_string(i) + " should be " +
             (end ? "the special one's second occurrence" : "an ordinary token, or the special one once");
    }
    if (special && first < 0) first = static_cast<int64_t>(i);
  }
  if (example.scored != std::vector<int32_t>{static_cast<int32_t>(config_.length) - 1}) {
    return "the scored position is not the last one";
  }
  if (example.targets != std::vector<int32_t>{tokens[static_cast<size_t>(first) + 1]}) {
    return "the target is not the token behind the special one";
  }
  if (example.slices != std::vector<int32_t>{static_cast<int32_t>(config_.length)}) {
    return "the slice is not the length";
  }
  return "";
}

std::vector<Role> InductionHeads::roles(const Example& example) const {
  std::vector<Role> result(example.tokens.size(), Role::filler);
  for (size_t i = 0; i < result.size(); ++i) {
    if (example.tokens[i] == kSpecial) result[i] = Role::special;
    if (i > 0 && example.tokens[i - 1] == kSpecial) result[i] = Role::data;
  }
  return result;
}

std::string InductionHeads::symbol(int32_t token, Role role) const {
  if (token == kSpecial) return "S";
  if (role == Role::filler) return std::to_string(token);
  return is_ordinary(token) ? "t" + std::to_string(token - kBias) : std::to_string(token);
}

std::vector<int32_t> InductionHeads::sources(const Example& example) const {
  std::vector<int32_t> result;
  for (int32_t position : example.scored) {
    const auto end = example.tokens.begin() + position;
    const auto first = std::find(example.tokens.begin(), end, kSpecial);
    result.push_back(end - first < 2 ? -1 : static_cast<int32_t>(first - example.tokens.begin()) + 1);
  }
  return result;
}

std::vector<int32_t> InductionHeads::oracle(const Example& example) const {
  std::vector<int32_t> answers = sources(example);
  for (int32_t& answer : answers) {
    if (answer >= 0) answer = example.tokens[static_cast<size_t>(answer)];
  }
  return answers;
}

std::vector<std::string> InductionHeads::error_kinds() const {
  return {"the token before the special one", "another ordinary token", "not an ordinary token"};
}

size_t InductionHeads::error_kind(const Example& example, size_t i, int32_t predicted) const {
  require_error(example, i, predicted);
  if (!is_ordinary(predicted)) return 2;
  const auto first = std::find(example.tokens.begin(), example.tokens.end(), kSpecial);
  return first != example.tokens.begin() && first[-1] == predicted ? 0 : 1;
}

}  // namespace hax
