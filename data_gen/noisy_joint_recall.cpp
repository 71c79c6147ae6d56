#include "data_gen/noisy_joint_recall.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data_gen/combinatorics.h"
#include "lib/config/check.h"

namespace hax {
namespace {

NoisyJointRecallConfig valid(const NoisyJointRecallConfig& config) {
  TaskConfig task;
  task.name = TaskKind::noisy_joint_recall;
  task.noisy_joint_recall = config;
  require_valid(task);
  return config;
}

}  // namespace

NoisyJointRecall::NoisyJointRecall(const NoisyJointRecallConfig& config)
    : config_(valid(config)),
      table_(config.table()),
      first_noise_(static_cast<int32_t>(config.table().ids())) {
  if (config.vocab_size == 0) config_.vocab_size = std::max(config.ids(), JointRecall::kPaperVocabulary);
  spec_ = table_.spec();
  spec_.task = "noisy_joint_recall";
  spec_.vocab_size = config_.vocab_size;
  spec_.padded_tokens = config_.padded_tokens();
}

std::string NoisyJointRecall::parameters() const {
  return nlohmann::json{{"n_context_min", config_.n_context_min},
                        {"n_context_max", config_.n_context_max},
                        {"n_key_min", config_.n_key_min},
                        {"n_key_max", config_.n_key_max},
                        {"n_value", config_.n_value},
                        {"length", config_.length},
                        {"n_noise", config_.n_noise},
                        {"noise_in_blocks", config_.noise_in_blocks},
                        {"vocab_size", config_.vocab_size}}
      .dump();
}

double NoisyJointRecall::log2_distinct(int64_t size) const {
  const JointRecall::Size s = table_.size(size);
  const int64_t gaps = s.n_context + 1 + (config_.noise_in_blocks ? s.n_context * s.n_key : 0);
  const int64_t noise = spec_.padded_tokens - 2 * s.n_context * (2 * s.n_key + 1) - 2;
  // The noise is a word of any tokens, cut into one part for each gap.
  return table_.log2_distinct(size) + log2_choose(noise + gaps - 1, gaps - 1) +
         static_cast<double>(noise) * std::log2(static_cast<double>(config_.n_noise));
}

void NoisyJointRecall::example(RandomStream& random, int64_t index, Example& result) const {
  Example table;
  table_.example(random, index, table);
  const std::vector<Role> roles = table_.roles(table);
  std::vector<size_t> gaps;  // the tokens that noise may stand before
  for (size_t i = 0; i < roles.size(); ++i) {
    if (opens_gap(roles[i])) gaps.push_back(i);
  }
  const auto noise = static_cast<size_t>(spec_.padded_tokens) - table.tokens.size();
  std::vector<int32_t> count(table.tokens.size());  // of noise tokens before each token
  for (size_t i = 0; i < noise; ++i) ++count[gaps[random.below(static_cast<uint32_t>(gaps.size()))]];

  result.tokens.resize(static_cast<size_t>(spec_.padded_tokens));
  result.slices = table.slices;
  result.targets = table.targets;
  size_t at = 0;
  for (size_t i = 0; i < table.tokens.size(); ++i) {
    for (int32_t u = 0; u < count[i]; ++u) {
      result.tokens[at++] =
          first_noise_ + static_cast<int32_t>(random.below(static_cast<uint32_t>(config_.n_noise)));
    }
    result.tokens[at++] = table.tokens[i];
  }
  // All noise stands before the second half.
  result.scored = table.scored;
  for (int32_t& position : result.scored) position += static_cast<int32_t>(noise);
}

Example NoisyJointRecall::without_noise(const Example& example, std::vector<int32_t>& positions) const {
  Example table;
  table.targets = example.targets;
  table.slices = example.slices;
  positions.clear();
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    if (is_noise(example.tokens[i])) continue;
    table.tokens.push_back(example.tokens[i]);
    positions.push_back(static_cast<int32_t>(i));
  }
  for (int32_t position : example.scored) {
    const auto found = std::lower_bound(positions.begin(), positions.end(), position);
    table.scored.push_back(found == positions.end() || *found != position
                               ? -1
                               : static_cast<int32_t>(found - positions.begin()));
  }
  return table;
}

std::string NoisyJointRecall::fault(const Example& example) const {
  if (static_cast<int64_t>(example.tokens.size()) != spec_.padded_tokens) {
    return std::to_string(example.tokens.size()) + " tokens instead of " +
           std::to_string(spec_.padded_tokens);
  }
  std::vector<int32_t> positions;
  const Example table = without_noise(example, positions);
  if (const std::string found = table_.fault(table); !found.empty()) return "without its noise: " + found;
  const std::vector<Role> roles = table_.roles(table);
  int32_t expected = 0;
  for (size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] != expected && !opens_gap(roles[i])) {
      return "noise at position " + std::to_string(expected) +
             ", before a token that must follow closely: " + std::string(role_name(roles[i]));
    }
    expected = positions[i] + 1;
  }
  if (expected != spec_.padded_tokens)
    return "noise at position " + std::to_string(expected) + ", at the end";
  return "";
}

std::vector<Role> NoisyJointRecall::roles(const Example& example) const {
  std::vector<int32_t> positions;
  const std::vector<Role> roles = table_.roles(without_noise(example, positions));
  std::vector<Role> result(example.tokens.size(), Role::filler);
  for (size_t i = 0; i < positions.size(); ++i) result[static_cast<size_t>(positions[i])] = roles[i];
  return result;
}

std::string NoisyJointRecall::symbol(int32_t token, Role role) const { return table_.symbol(token, role); }

std::vector<int32_t> NoisyJointRecall::sources(const Example& example) const {
  std::vector<int32_t> positions;
  std::vector<int32_t> result = table_.sources(without_noise(example, positions));
  for (int32_t& source : result) {
    if (source >= 0) source = positions[static_cast<size_t>(source)];
  }
  return result;
}

std::vector<int32_t> NoisyJointRecall::oracle(const Example& example) const {
  std::vector<int32_t> positions;
  return table_.oracle(without_noise(example, positions));
}

size_t NoisyJointRecall::error_kind(const Example& example, size_t i, int32_t predicted) const {
  require_error(example, i, predicted);
  std::vector<int32_t> positions;
  return table_.error_kind(without_noise(example, positions), i, predicted);
}

}  // namespace hax
