#include "data_gen/multilevel_joint_recall.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data_gen/combinatorics.h"
#include "data_gen/joint_recall.h"
#include "lib/config/check.h"

namespace hax {
namespace {

constexpr int32_t kBos = JointRecall::kBos;
constexpr int32_t kSeparator = JointRecall::kSeparator;
constexpr int32_t kBias = JointRecall::kBias;

}  // namespace

MultilevelJointRecall::MultilevelJointRecall(const MultilevelJointRecallConfig& config) : config_(config) {
  TaskConfig task;
  task.name = TaskKind::multilevel_joint_recall;
  task.multilevel_joint_recall = config;
  require_valid(task);
  if (config.vocab_size == 0) config_.vocab_size = std::max(config.ids(), JointRecall::kPaperVocabulary);

  const auto w = static_cast<size_t>(levels());
  first_id_.resize(w);
  below_.resize(w);
  auto id = static_cast<int32_t>(kBias + config.n_value);
  for (size_t level = w; level-- > 0;) {
    first_id_[level] = id;
    id += static_cast<int32_t>(config.levels[level]);
    below_[level] = entries_;
    entries_ *= config.levels[level];
  }

  spec_.task = "multilevel_joint_recall";
  spec_.vocab_size = config_.vocab_size;
  spec_.padded_tokens = config_.padded_tokens();
  spec_.target_kind = TargetKind::next_token;
  for (size_t level = 1; level <= w; ++level)
    spec_.slice_columns.push_back("n_level_" + std::to_string(level));
  spec_.chance = 1.0 / static_cast<double>(config.n_value);
  for (size_t level = 0; level < w; ++level) {
    spec_.slots.push_back({"level_" + std::to_string(level + 1), first_id_[level],
                           static_cast<int32_t>(config.levels[level]), false});
  }
  spec_.slots.push_back({"value", kBias, static_cast<int32_t>(config.n_value), true});
}

std::string MultilevelJointRecall::parameters() const {
  return nlohmann::json{
      {"levels", config_.levels}, {"n_value", config_.n_value}, {"vocab_size", config_.vocab_size}}
      .dump();
}

std::string MultilevelJointRecall::size_name(int64_t) const {
  return "levels " + nlohmann::json(config_.levels).dump();
}

double MultilevelJointRecall::log2_distinct(int64_t) const {
  // n_value^entries tables; in each half the symbols of every block in any order.
  double orders = 0.0;
  int64_t blocks = 1;
  for (int64_t symbols : config_.levels) {
    orders += static_cast<double>(blocks) * log2_factorial(symbols);
    blocks *= symbols;
  }
  return static_cast<double>(entries_) * std::log2(static_cast<double>(config_.n_value)) + 2.0 * orders;
}

void MultilevelJointRecall::write(RandomStream& random, size_t level, int64_t entry,
                                  const std::vector<int32_t>& table, std::vector<int32_t>& tokens,
                                  std::vector<int32_t>* scored) const {
  std::vector<int32_t> order(static_cast<size_t>(config_.levels[level]));
  permutation(random, config_.levels[level], order.data());
  const bool keys = level + 1 == config_.levels.size();
  for (int32_t symbol : order) {
    const int64_t inside = entry + symbol * below_[level];
    if (keys && scored != nullptr) scored->push_back(static_cast<int32_t>(tokens.size()));
    tokens.push_back(first_id_[level] + symbol);
    if (keys) {
      tokens.push_back(table[static_cast<size_t>(inside)]);
    } else {
      write(random, level + 1, inside, table, tokens, scored);
    }
  }
}

void MultilevelJointRecall::example(RandomStream& random, int64_t, Example& result) const {
  std::vector<int32_t> table(static_cast<size_t>(entries_));
  for (int32_t& value : table) {
    value = kBias + static_cast<int32_t>(random.below(static_cast<uint32_t>(config_.n_value)));
  }
  result.tokens.clear();
  result.tokens.reserve(static_cast<size_t>(spec_.padded_tokens));
  result.scored.clear();
  result.targets.clear();
  result.slices.assign(config_.levels.begin(), config_.levels.end());
  result.tokens.push_back(kBos);
  write(random, 0, 0, table, result.tokens, nullptr);
  result.tokens.push_back(kSeparator);
  write(random, 0, 0, table, result.tokens, &result.scored);
  for (int32_t position : result.scored) {
    result.targets.push_back(result.tokens[static_cast<size_t>(position) + 1]);
  }
}

int64_t MultilevelJointRecall::level_of(int32_t token) const {
  for (size_t level = 0; level < first_id_.size(); ++level) {
    if (token >= first_id_[level] && token - first_id_[level] < config_.levels[level]) {
      return static_cast<int64_t>(level);
    }
  }
  return -1;
}

bool MultilevelJointRecall::is_value(int32_t token) const {
  return token >= kBias && token < kBias + config_.n_value;
}

std::string MultilevelJointRecall::fault(const Example& example) const {
  const std::vector<int32_t>& tokens = example.tokens;
  if (static_cast<int64_t>(tokens.size()) != spec_.padded_tokens) {
    return std::to_string(tokens.size()) + " tokens instead of " + std::to_string(spec_.padded_tokens);
  }
  const auto wrong = [&](size_t position, const std::string& wanted) {
    return "token " + std::to_string(tokens[position]) + " at position " + std::to_string(position) +
           " should be " + wanted;
  };
  const size_t w = config_.levels.size();
  std::vector<int32_t> table(static_cast<size_t>(entries_), -1);
  std::vector<int32_t> scored;
  std::vector<int32_t> targets;
  size_t at = 0;
  for (const bool asking : {false, true}) {
    const int32_t opening = asking ? kSeparator : kBos;
    if (tokens[at] != opening) return wrong(at, std::to_string(opening));
    ++at;
    std::vector<bool> seen(static_cast<size_t>(entries_));
    // Each entry's path, of which only the symbols of blocks that open with it are written.
    std::vector<int64_t> symbol(w);
    std::vector<std::vector<bool>> used(w);
    for (int64_t entry = 0; entry < entries_; ++entry) {
      int64_t path = 0;
      for (size_t level = 0; level < w; ++level) {
        if (entry % below_[level] == 0) {
          const int64_t block = below_[level] * config_.levels[level];
          if (entry % block == 0) used[level].assign(static_cast<size_t>(config_.levels[level]), false);
          symbol[level] = tokens[at] - first_id_[level];
          if (symbol[level] < 0 || symbol[level] >= config_.levels[level] ||
              used[level][static_cast<size_t>(symbol[level])]) {
            return wrong(at, level + 1 == w ? "a key not yet used in its block"
                                            : "a context of level " + std::to_string(level + 1) +
                                                  " not yet used in its block");
          }
          used[level][static_cast<size_t>(symbol[level])] = true;
          ++at;
        }
        path += symbol[level] * below_[level];
      }
      if (!is_value(tokens[at])) return wrong(at, "a value");
      int32_t& value = table[static_cast<size_t>(path)];
      if (asking && tokens[at] != value) {
        return wrong(at, std::to_string(value) + ", as the first half says");
      }
      value = tokens[at];
      if (asking) {
        scored.push_back(static_cast<int32_t>(at) - 1);
        targets.push_back(value);
      }
      ++at;
    }
  }
  if (example.scored != scored) return "the scored positions are not the keys of the second half";
  if (example.targets != targets) return "the targets are not the tokens after the scored positions";
  if (!std::equal(example.slices.begin(), example.slices.end(), config_.levels.begin(),
                  config_.levels.end())) {
    return "the slices are not the sizes of the levels";
  }
  return "";
}

std::vector<Role> MultilevelJointRecall::roles(const Example& example) const {
  std::vector<Role> result;
  bool asking = false;
  for (int32_t token : example.tokens) {
    if (token == kSeparator) asking = true;
    const int64_t level = level_of(token);
    result.push_back(token == kBos           ? Role::bos
                     : token == kSeparator   ? Role::separator
                     : level < 0             ? (asking ? Role::answer : Role::value)
                     : level + 1 == levels() ? (asking ? Role::query_key : Role::key)
                                             : (asking ? Role::query_context : Role::context));
  }
  return result;
}

std::string MultilevelJointRecall::symbol(int32_t token, Role) const {
  if (token == kBos) return "BOS";
  if (token == kSeparator) return "SEP";
  if (is_value(token)) return "v" + std::to_string(token - kBias);
  const int64_t level = level_of(token);
  if (level < 0) return std::to_string(token);
  const std::string number = std::to_string(token - first_id_[static_cast<size_t>(level)]);
  return level + 1 == levels() ? "k" + number : "c" + std::to_string(level + 1) + "." + number;
}

MultilevelJointRecall::Reading MultilevelJointRecall::read(const Example& example) const {
  // Left to right, like a model: the table up to SEP, then at each question the contexts that were named
  // last.
  const std::vector<int32_t>& tokens = example.tokens;
  Reading result;
  result.position.assign(static_cast<size_t>(entries_), -1);
  std::vector<int64_t> path(config_.levels.size());  // entries in front of each level's last symbol
  const auto entry = [&] {
    int64_t sum = 0;
    for (int64_t part : path) sum += part;
    return sum;
  };
  bool asking = false;
  size_t next = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] == kSeparator) asking = true;
    const int64_t level = level_of(tokens[i]);
    if (level >= 0) {
      const auto l = static_cast<size_t>(level);
      path[l] = (tokens[i] - first_id_[l]) * below_[l];
    } else if (!asking && is_value(tokens[i])) {
      result.position[static_cast<size_t>(entry())] = static_cast<int32_t>(i);
    }
    if (next < example.scored.size() && static_cast<size_t>(example.scored[next]) == i) {
      result.asked.push_back(level + 1 == levels() ? entry() : -1);
      ++next;
    }
  }
  return result;
}

std::vector<int32_t> MultilevelJointRecall::sources(const Example& example) const {
  const Reading reading = read(example);
  std::vector<int32_t> result;
  for (int64_t entry : reading.asked) {
    result.push_back(entry < 0 ? -1 : reading.position[static_cast<size_t>(entry)]);
  }
  return result;
}

std::vector<int32_t> MultilevelJointRecall::oracle(const Example& example) const {
  std::vector<int32_t> answers = sources(example);
  for (int32_t& answer : answers) {
    if (answer >= 0) answer = example.tokens[static_cast<size_t>(answer)];
  }
  return answers;
}

std::vector<std::string> MultilevelJointRecall::error_kinds() const {
  return {"a value of the right key in another context", "a value of the same context", "another value",
          "not a value"};
}

size_t MultilevelJointRecall::error_kind(const Example& example, size_t i, int32_t predicted) const {
  require_error(example, i, predicted);
  if (!is_value(predicted)) return 3;
  const Reading reading = read(example);
  const int64_t keys = config_.levels.back();
  size_t kind = 2;
  for (int64_t entry = 0; entry < entries_; ++entry) {
    const int32_t position = reading.position[static_cast<size_t>(entry)];
    if (position < 0 || example.tokens[static_cast<size_t>(position)] != predicted) continue;
    if (entry % keys == reading.asked[i] % keys) return 0;
    if (entry / keys == reading.asked[i] / keys) kind = 1;
  }
  return kind;
}

}  // namespace hax
