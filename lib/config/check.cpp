#include "lib/config/check.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <type_traits>

#include "lib/base/error.h"
#include "lib/config/check_tasks.h"
#include "lib/config/fields.h"
#include "lib/config/names.h"
#include "lib/config/yaml.h"

namespace hax {
namespace {

constexpr int64_t kMaxBatchTokens = 2147483647;  // batches index their tokens with 32-bit integers
constexpr int64_t kMaxStreamIndex = 4294967296;  // streamed examples are numbered with 32 bits
constexpr int64_t kMaxSignBits = 20;             // 2^20 bins

std::string num(int64_t value) { return std::to_string(value); }
std::string named(const std::string& key, int64_t value) { return key + " = " + num(value); }

std::vector<Violation> range_violations(const Config& config) {
  std::vector<Violation> found;
  Config copy = config;
  for (const Field& field : fields_of(copy)) {
    const auto refuse = [&](const std::string& message) { found.push_back({{field.key}, message}); };
    std::visit(
        [&](auto* pointer) {
          using T = std::remove_pointer_t<decltype(pointer)>;
          if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>) {
            const auto x = static_cast<double>(*pointer);
            if (!std::isfinite(x) || !field.range.contains(x)) {
              refuse(field.key + " = " + field.text() + " must be " +
                     (std::isfinite(x) ? "" : "finite and ") + "in its range: " + field.range.text());
            }
          } else if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
            for (const int64_t element : *pointer) {
              if (field.range.contains(static_cast<double>(element))) continue;
              refuse(field.key + " = " + field.text() +
                     " must have elements in their range: " + field.range.text());
            }
          } else if constexpr (std::is_same_v<T, std::string>) {
            const std::string fault = text_fault(*pointer, false);
            if (!fault.empty()) refuse(field.key + " = " + shown(*pointer) + " holds " + fault);
            if (!field.range.contains(static_cast<double>(pointer->size()))) {
              refuse(field.key + " has " + std::to_string(pointer->size()) + " bytes; at most " +
                     std::to_string(static_cast<int64_t>(field.range.high)) + " are allowed");
            }
          }
        },
        field.value);
  }
  return found;
}

class Checker {
 public:
  explicit Checker(const Config& config) : config_(config) {}

  std::vector<Violation> run() {
    violations_ = range_violations(config_);
    if (!violations_.empty()) return std::move(violations_);  // the arithmetic below relies on the ranges
    check_task();
    check_model();
    check_sparse();
    check_train();
    return std::move(violations_);
  }

 private:
  void require(bool holds, std::vector<std::string> keys, const std::string& message) {
    if (!holds) violations_.push_back({std::move(keys), message});
  }

  // The logarithm of how many different examples a table of this size has.
  static double log_examples(const JointRecallConfig& c, int64_t n_context, int64_t n_key) {
    const auto contexts = static_cast<double>(n_context), keys = static_cast<double>(n_key);
    const double orders = std::lgamma(contexts + 1) + contexts * std::lgamma(keys + 1);
    return contexts * keys * std::log(static_cast<double>(c.n_value)) + 2 * orders;
  }

  void check_task() {
    std::vector<Violation> faults = task_violations(config_.task);
    if (faults.empty() && config_.task.name == TaskKind::joint_recall) check_distinct();
    violations_.insert(violations_.end(), faults.begin(), faults.end());
    const LongestExample longest = longest_example(config_.task);
    check_batches(longest.formula, longest.tokens, longest.keys);
  }

  // Splits hold distinct examples, sizes take turns, so the smallest table must have enough of them.
  void check_distinct() {
    const JointRecallConfig& c = config_.task.joint_recall;
    const DataConfig& d = config_.data;
    const std::string p = "task.joint_recall.";
    const int64_t sizes = (c.n_context_max - c.n_context_min + 1) * (c.n_key_max - c.n_key_min + 1);
    const int64_t train =
        d.source == DataSource::file ? d.train_examples : 0;  // a stream repeats as it likes
    int64_t wanted = 0;
    for (const int64_t examples : {train, d.valid_examples, d.test_examples}) {
      wanted += (examples + sizes - 1) / sizes;
    }
    const double log_there = log_examples(c, c.n_context_min, c.n_key_min);
    const bool enough = wanted <= 1 || std::log(static_cast<double>(wanted)) <= log_there + 1e-9;
    require(enough,
            {"data.train_examples", "data.valid_examples", "data.test_examples", p + "n_context_min",
             p + "n_key_min", p + "n_value"},
            "data.train_examples + data.valid_examples + data.test_examples ask for " + num(wanted) +
                " distinct examples of " + num(c.n_context_min) + " context(s) x " + num(c.n_key_min) +
                " key(s) (an equal share for each of " + num(sizes) + " table sizes), but with " +
                named(p + "n_value", c.n_value) + " only " +
                num(std::llround(std::exp(std::min(log_there, 40.0)))) + " exist; ask for fewer, or raise " +
                p + "n_context_min or " + p + "n_key_min");
  }

  void check_batches(const std::string& formula, int64_t longest,
                     const std::vector<std::string>& length_keys) {
    for (const auto& [name, size] : {std::pair{"train.batch_size", config_.train.batch_size},
                                     std::pair{"train.eval_batch_size", config_.train.eval_batch_size}}) {
      std::vector<std::string> keys{name};
      keys.insert(keys.end(), length_keys.begin(), length_keys.end());
      require(size * longest <= kMaxBatchTokens, keys,
              named(name, size) + " times the longest example, " + formula + " = " + num(longest) +
                  " tokens, is " + num(size * longest) + " and must be <= " + num(kMaxBatchTokens));
    }
  }

  void check_model() {
    const ModelConfig& m = config_.model;
    require(!m.mixer.empty(), {"model.mixer"}, "model.mixer = [] must name a mixer");
    if (m.has_mixer(MixerKind::mamba2)) check_mamba2();
    if (m.has_mixer(MixerKind::attention)) check_attention();
    if (m.has_mixer(MixerKind::constructive)) check_constructive();
  }

  void check_mamba2() {
    const ModelConfig& m = config_.model;
    require(m.d_inner() % m.n_heads == 0, {"model.n_heads", "model.d_model", "model.expand"},
            named("model.n_heads", m.n_heads) +
                " must divide model.d_inner = model.expand * model.d_model = " + num(m.expand) + " * " +
                num(m.d_model) + " = " + num(m.d_inner()));
    require(m.n_heads % m.n_groups == 0, {"model.n_groups", "model.n_heads"},
            named("model.n_groups", m.n_groups) + " must divide " + named("model.n_heads", m.n_heads));
  }

  void check_attention() {
    const ModelConfig& m = config_.model;
    const AttentionConfig& a = m.attention;
    const bool divides = m.d_model % a.n_heads == 0;
    require(
        divides, {"model.attention.n_heads", "model.d_model"},
        named("model.attention.n_heads", a.n_heads) + " must divide " + named("model.d_model", m.d_model));
    require(!divides || !a.rope || m.d_model / a.n_heads % 2 == 0,
            {"model.attention.rope", "model.attention.n_heads", "model.d_model"},
            "model.attention.rope = true rotates pairs of features, so model.d_model / "
            "model.attention.n_heads = " +
                num(m.d_model) + " / " + num(a.n_heads) + " must be even");
  }

  // Its two layers are one construction, which other settings would break.
  void check_constructive() {
    const ModelConfig& m = config_.model;
    const auto needs = [&](bool holds, const std::vector<std::string>& keys, const std::string& remedy) {
      std::vector<std::string> all = keys;
      all.emplace_back("model.mixer");
      require(holds, all, "model.mixer = constructive is a fixed solution of two layers: " + remedy);
    };
    const bool alone = std::count(m.mixer.begin(), m.mixer.end(), MixerKind::constructive) ==
                       static_cast<int64_t>(m.mixer.size());
    needs(alone, {}, "it goes with no other mixer, set model.mixer = constructive");
    needs(m.layers == 2, {"model.layers"}, named("model.layers", m.layers) + " must be 2");
    needs(m.mode == Statistics::causal, {"model.mode"}, "model.mode must be causal");
    needs(m.mlp_ratio == 0, {"model.mlp_ratio"}, named("model.mlp_ratio", m.mlp_ratio) + " must be 0");
    needs(m.sparse.patterns == std::vector{PatternKind::lsh}, {"model.sparse.patterns"},
          "model.sparse.patterns must be [lsh]");
    needs(
        m.sparse.centring == Centring::none, {"model.sparse.centring"},
        "model.sparse.centring must be none: a running mean moves a query away from the key that it equals");
    needs(m.sparse.d_qk == 0, {"model.sparse.d_qk"},
          named("model.sparse.d_qk", m.sparse.d_qk) +
              " must be 0: its queries and keys are as wide as model.d_model");
    const TaskKind task = config_.task.name;
    needs(task == TaskKind::joint_recall || task == TaskKind::multilevel_joint_recall ||
              task == TaskKind::noisy_joint_recall || task == TaskKind::mqar,
          {"task.name"},
          "task.name = " + std::string(name_of(task)) +
              " must be joint_recall, multilevel_joint_recall, noisy_joint_recall or mqar");
    needs(config_.train.steps == 0, {"train.steps"},
          named("train.steps", config_.train.steps) + " must be 0: it is not trained");
  }

  void check_sparse() {
    const SparseConfig& s = config_.model.sparse;
    const std::string p = "model.sparse.";
    const auto n = static_cast<int64_t>(s.patterns.size());
    const std::set<PatternKind> kinds(s.patterns.begin(), s.patterns.end());
    for (const PatternKind kind : kinds) {
      const auto times = std::count(s.patterns.begin(), s.patterns.end(), kind);
      require(
          times == 1, {p + "patterns"},
          p + "patterns names " + std::string(name_of(kind)) + " " + num(times) + " times; once is the most");
    }
    require(s.centring == Centring::running_mean || config_.model.mode == Statistics::causal,
            {p + "centring", "model.mode"},
            p + "centring = " + std::string(name_of(s.centring)) +
                " needs model.mode = causal; model.mode = paper has its own"
                " rule, delete " +
                p + "centring");
    require(s.hash_rule != HashRule::sign || s.hash_bits <= kMaxSignBits, {p + "hash_bits", p + "hash_rule"},
            named(p + "hash_bits", s.hash_bits) + " must be <= " + num(kMaxSignBits) + " with " + p +
                "hash_rule = sign, which makes 2^hash_bits bins");
    const bool branch = config_.model.has_mixer(MixerKind::mamba) ||
                        config_.model.has_mixer(MixerKind::mamba2) ||
                        config_.model.has_mixer(MixerKind::constructive);
    require(n == 0 || branch, {p + "patterns", "model.mixer"},
            p + "patterns needs a mixer with a sparse branch in model.mixer: mamba, mamba2 or constructive");
    const auto budgets = static_cast<int64_t>(s.budgets.size());
    require(budgets == 0 || budgets == n, {p + "budgets", p + "patterns"},
            p + "budgets has " + num(budgets) + " elements and must have one for each of " + num(n) + " " +
                p + "patterns, or none for the even split of k");
    if (budgets != 0) {
      if (budgets == n) check_shares();
      return;
    }
    require(s.k >= n, {p + "k", p + "patterns"},
            named(p + "k", s.k) + " must be >= the number of " + p + "patterns = " + num(n) +
                ", so that each gets a key");
    if (n > 0 && s.k >= n) check_shares();
  }

  void check_shares() {
    const SparseConfig& s = config_.model.sparse;
    const std::string p = "model.sparse.";
    const std::string source = p + (s.budgets.empty() ? "k" : "budgets");
    for (size_t i = 0; i < s.patterns.size(); ++i) {
      const int64_t share = s.share(i);
      const std::string share_text = s.budgets.empty()
                                         ? p + "k / number of patterns = " + num(s.k) + " / " +
                                               std::to_string(s.patterns.size()) + " = " + num(share)
                                         : p + "budgets[" + std::to_string(i) + "] = " + num(share);
      require(s.patterns[i] != PatternKind::dilated || s.max_length >= share,
              {p + "max_length", source, p + "patterns"},
              named(p + "max_length", s.max_length) + " must be >= the share of `dilated`, " + share_text +
                  ", for a dilation of at least 1");
      require(s.patterns[i] != PatternKind::key_selection || s.ranking_weight == 0.0 || share >= 2,
              {source, p + "patterns", p + "ranking_weight"},
              "the share of `key_selection`, " + share_text +
                  ", must be >= 2: the ranking loss compares pairs of sampled keys (" + p +
                  "ranking_weight = 0 leaves the scores untrained)");
    }
  }

  void check_train() {
    const TrainConfig& t = config_.train;
    require(t.warmup_steps <= t.steps || t.steps == 0, {"train.warmup_steps", "train.steps"},
            named("train.warmup_steps", t.warmup_steps) + " must be <= " + named("train.steps", t.steps));
    require(t.lr_min_ratio == 0.0 || t.schedule == Schedule::cosine, {"train.lr_min_ratio", "train.schedule"},
            "train.lr_min_ratio = " + format_double(t.lr_min_ratio) +
                " needs train.schedule = cosine; train.schedule = " + std::string(name_of(t.schedule)) +
                " never reads it");
    require(config_.data.source != DataSource::stream || t.steps * t.batch_size <= kMaxStreamIndex,
            {"train.steps", "train.batch_size"},
            "train.steps * train.batch_size = " + num(t.steps) + " * " + num(t.batch_size) + " = " +
                num(t.steps * t.batch_size) + " examples must be <= " + num(kMaxStreamIndex) +
                " with data.source = stream");
  }

  const Config& config_;
  std::vector<Violation> violations_;
};

}  // namespace

std::vector<Violation> violations(const Config& config) { return Checker(config).run(); }

std::vector<std::string> check(const Config& config) {
  std::vector<std::string> messages;
  for (const Violation& violation : violations(config)) messages.push_back(violation.message);
  return messages;
}

void require_valid(const TaskConfig& task) {
  Config config;
  config.task = task;
  std::vector<Violation> faults = range_violations(config);
  if (faults.empty()) faults = task_violations(task);
  if (faults.empty()) return;
  std::string text;
  for (const Violation& fault : faults) text += (text.empty() ? "" : "\n") + fault.message;
  throw UsageError(text);
}

std::vector<std::string> check_for_training(const Config& config) {
  std::vector<std::string> messages;
  if (config.data.path.empty()) {
    messages.push_back(config.data.source == DataSource::file
                           ? "data.path is empty, but data.source = file trains on a dataset folder; name "
                             "one made by `hax gen-data`"
                           : "data.path is empty, but training on a stream validates on a dataset folder, "
                             "whose validation and test "
                             "examples the stream avoids; name one made by `hax gen-data`");
  }
  return messages;
}

}  // namespace hax
