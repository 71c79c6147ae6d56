#include "lib/config/check_tasks.h"

#include <cmath>
#include <numeric>
#include <stdexcept>

#include "lib/config/names.h"

namespace hax {
namespace {

constexpr int64_t kMaxTokens = 16777216;
constexpr int64_t kMaxSizes = 1024;
constexpr int64_t kMaxPeriod = 1048576;

std::string num(int64_t value) { return std::to_string(value); }

// Checks the section of one task; keys are named by their last part.
class TaskChecker {
 public:
  explicit TaskChecker(const TaskConfig& task) : task_(task) {
    prefix_ = "task." + std::string(name_of(task.name)) + ".";
  }

  std::vector<Violation> run() {
    switch (task_.name) {
      case TaskKind::joint_recall:
        check(task_.joint_recall);
        break;
      case TaskKind::multilevel_joint_recall:
        check(task_.multilevel_joint_recall);
        break;
      case TaskKind::noisy_joint_recall:
        check(task_.noisy_joint_recall);
        break;
      case TaskKind::mqar:
        check(task_.mqar);
        break;
      case TaskKind::mqar_compositional:
        check(task_.mqar_compositional);
        break;
      case TaskKind::mqar_forgetting:
        check(task_.mqar_forgetting);
        break;
      case TaskKind::induction_heads:
        break;  // the ranges say it all
      case TaskKind::selective_copying:
        check(task_.selective_copying);
        break;
    }
    return std::move(violations_);
  }

 private:
  void require(bool holds, const std::vector<std::string>& names, const std::string& message) {
    if (holds) return;
    Violation violation{{}, prefix_ + message};
    for (const std::string& name : names) violation.keys.push_back(prefix_ + name);
    violations_.push_back(violation);
  }
  std::string named(const std::string& name, int64_t value) const { return name + " = " + num(value); }

  template <class Table>
  void check_table_sizes(const Table& c) {
    require(c.n_context_min <= c.n_context_max, {"n_context_min", "n_context_max"},
            named("n_context_min", c.n_context_min) + " must be <= " + prefix_ +
                named("n_context_max", c.n_context_max));
    require(c.n_key_min <= c.n_key_max, {"n_key_min", "n_key_max"},
            named("n_key_min", c.n_key_min) + " must be <= " + prefix_ + named("n_key_max", c.n_key_max));
  }

  void check(const JointRecallConfig& c) {
    check_table_sizes(c);
    require(c.vocab_size == 0 || c.vocab_size >= c.ids(),
            {"vocab_size", "n_value", "n_key_max", "n_context_max"},
            named("vocab_size", c.vocab_size) +
                " must be >= 10 reserved ids + n_value + n_key_max + n_context_max = 10 + " + num(c.n_value) +
                " + " + num(c.n_key_max) + " + " + num(c.n_context_max) + " = " + num(c.ids()) +
                "; 0 picks the size");
  }

  void check(const MultilevelJointRecallConfig& c) {
    require(!c.levels.empty(), {"levels"}, "levels = [] must name the size of a level");
    require(c.padded_tokens() <= kMaxTokens, {"levels"},
            "levels make an example of more than " + num(kMaxTokens) + " tokens; take fewer or smaller ones");
    require(c.vocab_size == 0 || c.vocab_size >= c.ids(), {"vocab_size", "n_value", "levels"},
            named("vocab_size", c.vocab_size) + " must be >= 10 reserved ids + n_value + all levels = " +
                num(c.ids()) + "; 0 picks the size");
  }

  void check(const NoisyJointRecallConfig& c) {
    check_table_sizes(c);
    const int64_t least = c.table().padded_tokens() - 1;
    require(c.length >= least, {"length", "n_context_max", "n_key_max"},
            named("length", c.length) +
                " must be >= the largest table without noise, 2 * n_context_max * "
                "(2 * n_key_max + 1) + 1 = " +
                num(least));
    require(c.vocab_size == 0 || c.vocab_size >= c.ids(),
            {"vocab_size", "n_value", "n_key_max", "n_context_max", "n_noise"},
            named("vocab_size", c.vocab_size) +
                " must be >= 10 reserved ids + n_value + n_key_max + n_context_max + n_noise = " +
                num(c.ids()) + "; 0 picks the size");
  }

  // What the kinds of associative recall share. `pair_tokens` of the input are needed for each pair.
  void check_length(const std::string& length_name, int64_t length, const std::string& needed_text,
                    const std::vector<std::string>& needed_names, int64_t needed, int64_t vocab_size) {
    require(length % 2 == 0, {"input_seq_len"}, named(length_name, length) + " must be even");
    require(vocab_size > length, {"vocab_size", "input_seq_len"},
            named("vocab_size", vocab_size) + " must be > " + prefix_ + named(length_name, length));
    if (needed <= length) return;
    Violation violation{{},
                        needed_text + num(needed) + " must be <= " + prefix_ + named(length_name, length)};
    for (const std::string& name : needed_names) violation.keys.push_back(prefix_ + name);
    violation.keys.push_back(prefix_ + "input_seq_len");
    violations_.push_back(violation);
  }
  void check_keys(const std::string& name, int64_t pairs, int64_t vocab_size) {
    require(pairs <= vocab_size / 2 - 1, {"num_kv_pairs", "vocab_size"},
            named(name, pairs) + " distinct keys must be <= the ids 1 .. vocab_size / 2 - 1: " +
                num(vocab_size) + " / 2 - 1 = " + num(vocab_size / 2 - 1));
  }

  void check(const MqarConfig& c) {
    const size_t sizes = c.input_seq_len.size();
    require(sizes > 0 && static_cast<int64_t>(sizes) <= kMaxSizes, {"input_seq_len"},
            "input_seq_len has " + std::to_string(sizes) + " elements and must have 1 to " + num(kMaxSizes) +
                ", one for each size");
    require(c.num_kv_pairs.size() == sizes, {"num_kv_pairs", "input_seq_len"},
            "num_kv_pairs has " + std::to_string(c.num_kv_pairs.size()) +
                " elements and must have as many as " + prefix_ + "input_seq_len, " + std::to_string(sizes));
    require(c.weights.empty() || c.weights.size() == sizes, {"weights", "input_seq_len"},
            "weights has " + std::to_string(c.weights.size()) + " elements and must have as many as " +
                prefix_ + "input_seq_len, " + std::to_string(sizes) + ", or none for equal numbers");
    if (!violations_.empty()) return;
    int64_t divisor = 0, total = 0;
    for (const int64_t weight : c.weights) divisor = std::gcd(divisor, weight), total += weight;
    if (divisor > 0) {
      require(total / divisor <= kMaxPeriod, {"weights"},
              "weights add up to " + num(total) + ", over their greatest common divisor " + num(divisor) +
                  " that is " + num(total / divisor) + " and must be <= " + num(kMaxPeriod) +
                  "; use rounder numbers");
    }
    for (size_t i = 0; i < sizes; ++i) {
      const std::string place = sizes > 1 ? "[" + std::to_string(i) + "]" : "";
      const int64_t pairs = c.num_kv_pairs[i];
      check_length("input_seq_len" + place, c.input_seq_len[i],
                   "4 * " + prefix_ + "num_kv_pairs" + place + " = 4 * " + num(pairs) + " = ",
                   {"num_kv_pairs"}, 4 * pairs, c.vocab_size);
      check_keys("num_kv_pairs" + place, pairs, c.vocab_size);
    }
  }

  void check(const MqarCompositionalConfig& c) {
    const auto side = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(c.num_kv_pairs))));
    require(side * side == c.num_kv_pairs, {"num_kv_pairs"},
            named("num_kv_pairs", c.num_kv_pairs) + " must be a square: 1, 4, 9, 16, ...");
    check_length("input_seq_len", c.input_seq_len,
                 "6 * " + prefix_ + "num_kv_pairs = 6 * " + num(c.num_kv_pairs) + " = ", {"num_kv_pairs"},
                 6 * c.num_kv_pairs, c.vocab_size);
    const int64_t third = c.vocab_size / 3;
    require(side <= third - 1, {"num_kv_pairs", "vocab_size"},
            named("num_kv_pairs", c.num_kv_pairs) + " keys need " + num(side) +
                " first tokens, which must be <= the ids 1 .. vocab_size / 3 - 1: " + num(third - 1));
    require(c.num_kv_pairs <= c.vocab_size - 2 * third, {"num_kv_pairs", "vocab_size"},
            named("num_kv_pairs", c.num_kv_pairs) +
                " distinct values must be <= the ids from 2 * (vocab_size "
                "/ 3) on: " +
                num(c.vocab_size - 2 * third));
  }

  void check(const MqarForgettingConfig& c) {
    require(c.num_updates <= c.num_kv_pairs, {"num_updates", "num_kv_pairs"},
            named("num_updates", c.num_updates) + " must be <= " + prefix_ +
                named("num_kv_pairs", c.num_kv_pairs));
    check_length("input_seq_len", c.input_seq_len,
                 "4 * " + prefix_ + "num_kv_pairs + 2 * " + prefix_ + "num_updates = 4 * " +
                     num(c.num_kv_pairs) + " + 2 * " + num(c.num_updates) + " = ",
                 {"num_kv_pairs", "num_updates"}, 4 * c.num_kv_pairs + 2 * c.num_updates, c.vocab_size);
    check_keys("num_kv_pairs", c.num_kv_pairs, c.vocab_size);
  }

  void check(const SelectiveCopyingConfig& c) {
    require(c.n_data <= c.length, {"n_data", "length"},
            named("n_data", c.n_data) + " must be <= " + prefix_ + named("length", c.length));
  }

  const TaskConfig& task_;
  std::string prefix_;
  std::vector<Violation> violations_;
};

}  // namespace

int64_t MultilevelJointRecallConfig::ids() const {
  return std::accumulate(levels.begin(), levels.end(), 10 + n_value);
}

int64_t MultilevelJointRecallConfig::padded_tokens() const {
  constexpr int64_t kHuge = int64_t{1} << 40;
  int64_t block = 1;  // tokens inside one symbol of the level: at last the value
  for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
    block = std::min(kHuge / 4, *level * (block + 1));
  }
  return 2 * block + 2;
}

std::vector<Violation> task_violations(const TaskConfig& task) { return TaskChecker(task).run(); }

LongestExample longest_example(const TaskConfig& task) {
  const std::string prefix = "task." + std::string(name_of(task.name)) + ".";
  switch (task.name) {
    case TaskKind::joint_recall:
      return {"2 * n_context_max * (2 * n_key_max + 1) + 2",
              task.joint_recall.padded_tokens(),
              {prefix + "n_context_max", prefix + "n_key_max"}};
    case TaskKind::multilevel_joint_recall:
      return {"of these levels", task.multilevel_joint_recall.padded_tokens(), {prefix + "levels"}};
    case TaskKind::noisy_joint_recall:
      return {"length + 1", task.noisy_joint_recall.padded_tokens(), {prefix + "length"}};
    case TaskKind::mqar:
      return {"input_seq_len", task.mqar.padded_tokens(), {prefix + "input_seq_len"}};
    case TaskKind::mqar_compositional:
      return {"input_seq_len", task.mqar_compositional.input_seq_len, {prefix + "input_seq_len"}};
    case TaskKind::mqar_forgetting:
      return {"input_seq_len", task.mqar_forgetting.input_seq_len, {prefix + "input_seq_len"}};
    case TaskKind::induction_heads:
      return {"length", task.induction_heads.length, {prefix + "length"}};
    case TaskKind::selective_copying:
      return {"length + 1 + n_data",
              task.selective_copying.padded_tokens(),
              {prefix + "length", prefix + "n_data"}};
  }
  throw std::invalid_argument("longest_example: task kind " + std::to_string(static_cast<int>(task.name)));
}

}  // namespace hax
