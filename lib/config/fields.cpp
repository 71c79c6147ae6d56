// Sizes have upper bounds only so that products of them stay inside 64-bit and token counts inside 32-bit
// integers; what fits a machine is the machine's business.
#include "lib/config/fields.h"

#include <array>
#include <charconv>
#include <cmath>
#include <type_traits>

#include "lib/config/names.h"

namespace hax {
namespace {

constexpr double kMaxSize = 65536;
constexpr double kMaxTokens = 16777216;   // 2^24
constexpr double kMaxIndex = 4294967295;  // 2^32 - 1: examples and steps number random streams

Range at_least(double low) { return {.low = low}; }
Range above(double low) { return {.low = low, .low_open = true}; }
Range from_to(double low, double high) { return {.low = low, .high = high}; }
Range from_below(double low, double high) { return {.low = low, .high = high, .high_open = true}; }
Range length_up_to(double bytes) { return {.low = 0, .high = bytes}; }

// Collects a struct's fields under the prefix of the section that is open.
class Visitor {
 public:
  template <class T>
  void field(T& value, const char* name, const char* help, const char* unit = "", Range range = {}) {
    entries_.emplace_back(Field{prefix_ + name, help, unit, range, &value});
  }
  template <class S>
  void section(S& config, const char* name, const char* help) {
    entries_.emplace_back(Section{prefix_ + name, help});
    const std::string outer = prefix_;
    prefix_ += std::string(name) + ".";
    describe(config, *this);
    prefix_ = outer;
  }
  std::vector<Entry> take() { return std::move(entries_); }

 private:
  std::string prefix_;
  std::vector<Entry> entries_;
};

void describe(JointRecallConfig& c, Visitor& v) {
  v.field(c.n_context_min, "n_context_min", "Fewest contexts in an example.", "contexts", from_to(1, 10000));
  v.field(c.n_context_max, "n_context_max", "Most contexts in an example.", "contexts", from_to(1, 10000));
  v.field(c.n_key_min, "n_key_min", "Fewest keys in a context.", "keys", from_to(1, 10000));
  v.field(c.n_key_max, "n_key_max", "Most keys in a context.", "keys", from_to(1, 10000));
  v.field(c.n_value, "n_value", "Values a table entry is drawn from.", "values", from_to(1, 1e6));
  v.field(c.vocab_size, "vocab_size",
          "Token ids of the model; 0: the smallest that holds every id, but at least 100.", "tokens",
          from_to(0, kMaxTokens));
}

void describe(MultilevelJointRecallConfig& c, Visitor& v) {
  v.field(c.levels, "levels",
          "Symbols of each level, from the outermost contexts to the keys; one level is associative recall, "
          "two are joint recall.",
          "symbols", from_to(1, 10000));
  v.field(c.n_value, "n_value", "Values a table entry is drawn from.", "values", from_to(2, kMaxSize));
  v.field(c.vocab_size, "vocab_size",
          "Token ids of the model; 0: the smallest that holds every id, but at least 100.", "tokens",
          from_to(0, kMaxTokens));
}

void describe(NoisyJointRecallConfig& c, Visitor& v) {
  v.field(c.n_context_min, "n_context_min", "Fewest contexts in an example.", "contexts", from_to(1, 4096));
  v.field(c.n_context_max, "n_context_max", "Most contexts in an example.", "contexts", from_to(1, 4096));
  v.field(c.n_key_min, "n_key_min", "Fewest keys in a context.", "keys", from_to(1, 4096));
  v.field(c.n_key_max, "n_key_max", "Most keys in a context.", "keys", from_to(1, 4096));
  v.field(c.n_value, "n_value", "Values a table entry is drawn from.", "values", from_to(2, kMaxSize));
  v.field(c.length, "length", "Length of the model's input, noise included.", "tokens",
          from_to(1, kMaxTokens - 1));
  v.field(c.n_noise, "n_noise", "Noise tokens to draw from.", "tokens", from_to(1, kMaxSize));
  v.field(c.noise_in_blocks, "noise_in_blocks",
          "Put noise between the pairs of a context's block too, not only between blocks.");
  v.field(c.vocab_size, "vocab_size",
          "Token ids of the model; 0: the smallest that holds every id, but at least 100.", "tokens",
          from_to(0, kMaxTokens));
}

// What the three kinds of associative recall share.
constexpr const char* kPowerA =
    "Exponent of the gaps between a pair and its query: small values ask soon, 1 is uniform.";
constexpr const char* kNonQueries = "Fill the places between queries with random tokens, not with 0.";

void describe(MqarConfig& c, Visitor& v) {
  v.field(c.vocab_size, "vocab_size", "Token ids; keys are drawn from the lower half, values from the upper.",
          "tokens", from_to(1, kMaxTokens));
  v.field(c.input_seq_len, "input_seq_len", "Lengths of examples, one for each size; even.", "tokens",
          from_to(1, kMaxTokens));
  v.field(c.num_kv_pairs, "num_kv_pairs",
          "Key-value pairs in an example, each asked once; one number for each size.", "pairs",
          from_to(1, kMaxTokens));
  v.field(c.weights, "weights", "Relative numbers of examples of the sizes; []: equal.", "",
          from_to(1, kMaxTokens));
  v.field(c.power_a, "power_a", kPowerA, "", above(0));
  v.field(c.random_non_queries, "random_non_queries", kNonQueries);
}

void describe(MqarCompositionalConfig& c, Visitor& v) {
  v.field(c.vocab_size, "vocab_size",
          "Token ids; a third each for first key tokens, second key tokens and values.", "tokens",
          from_to(1, kMaxTokens));
  v.field(c.input_seq_len, "input_seq_len", "Length of an example; even.", "tokens", from_to(1, kMaxTokens));
  v.field(c.num_kv_pairs, "num_kv_pairs",
          "Keys in an example, each asked once; a square: every first token with every second one.", "pairs",
          from_to(1, kMaxTokens));
  v.field(c.power_a, "power_a", kPowerA, "", above(0));
  v.field(c.random_non_queries, "random_non_queries", kNonQueries);
}

void describe(MqarForgettingConfig& c, Visitor& v) {
  v.field(c.vocab_size, "vocab_size", "Token ids; keys are drawn from the lower half, values from the upper.",
          "tokens", from_to(1, kMaxTokens));
  v.field(c.input_seq_len, "input_seq_len", "Length of an example; even.", "tokens", from_to(1, kMaxTokens));
  v.field(c.num_kv_pairs, "num_kv_pairs", "Keys in an example, each asked once.", "pairs",
          from_to(1, kMaxTokens));
  v.field(c.num_updates, "num_updates", "Keys that get another value behind the pairs.", "keys",
          from_to(0, kMaxTokens));
  v.field(c.power_a, "power_a", kPowerA, "", above(0));
  v.field(c.random_non_queries, "random_non_queries", kNonQueries);
}

void describe(InductionHeadsConfig& c, Visitor& v) {
  v.field(c.length, "length", "Length of an example.", "tokens", from_to(3, kMaxTokens));
  v.field(c.n_token, "n_token", "Ordinary tokens to draw from.", "tokens", from_to(2, kMaxSize));
}

void describe(SelectiveCopyingConfig& c, Visitor& v) {
  v.field(c.length, "length", "Data and noise tokens before the separator.", "tokens",
          from_to(1, kMaxTokens / 4));
  v.field(c.n_data, "n_data", "Data tokens to copy.", "tokens", from_to(1, kMaxTokens / 4));
  v.field(c.n_token, "n_token", "Data tokens to draw from.", "tokens", from_to(2, kMaxSize));
  v.field(c.n_noise, "n_noise", "Noise tokens to draw from.", "tokens", from_to(1, kMaxSize));
}

void describe(TaskConfig& c, Visitor& v) {
  v.field(c.name, "name", "Task the examples come from; the other tasks' sections are not read.");
  v.section(c.joint_recall, "joint_recall",
            "Joint recall: a table of contexts and keys, asked a second time.");
  v.section(c.multilevel_joint_recall, "multilevel_joint_recall",
            "Joint recall with contexts inside contexts, to any depth.");
  v.section(c.noisy_joint_recall, "noisy_joint_recall",
            "Joint recall at a chosen length: noise stands between the blocks of the table.");
  v.section(c.mqar, "mqar", "Multi-query associative recall, as in Zoology; of one size or a mix.");
  v.section(c.mqar_compositional, "mqar_compositional",
            "Associative recall by keys of two tokens, neither of which tells the value alone.");
  v.section(c.mqar_forgetting, "mqar_forgetting",
            "Associative recall where later pairs replace the values of some keys.");
  v.section(c.induction_heads, "induction_heads",
            "The token behind the special one is asked for at the end, as in the Mamba paper.");
  v.section(c.selective_copying, "selective_copying",
            "Data tokens among noise are copied in their order, as in the Mamba paper.");
}

void describe(DataConfig& c, Visitor& v) {
  v.field(c.source, "source",
          "Training examples come from a dataset folder (file) or are drawn on the fly (stream).");
  v.field(c.path, "path", "Dataset folder: training data of `file`, evaluation splits of both sources.", "",
          length_up_to(4096));
  v.field(c.seed, "seed", "Seed of the examples.", "", at_least(0));
  v.field(c.train_examples, "train_examples", "Training examples of a dataset that is generated.", "examples",
          from_to(0, kMaxIndex));
  v.field(c.valid_examples, "valid_examples", "Validation examples of a dataset that is generated.",
          "examples", from_to(0, kMaxIndex));
  v.field(c.test_examples, "test_examples", "Test examples of a dataset that is generated.", "examples",
          from_to(0, kMaxIndex));
}

void describe(SparseConfig& c, Visitor& v) {
  v.field(c.patterns, "patterns",
          "Attention patterns whose union a query may attend to; []: no sparse branch.");
  v.field(c.k, "k", "Keys a query may attend to, split evenly over the patterns.", "keys",
          from_to(1, kMaxTokens));
  v.field(c.budgets, "budgets",
          "Keys a query may attend to by each pattern, in their order; []: the even split of k.", "keys",
          from_to(1, kMaxTokens));
  v.field(c.d_qk, "d_qk", "Width of queries and keys; 0: model.d_state.", "features", from_to(0, kMaxSize));
  v.field(c.hash_rule, "hash_rule",
          "How lsh turns h projections into a bin: sign (2^h bins) or argmax (h bins).");
  v.field(c.hash_bits, "hash_bits", "Projections h of the hash.", "projections", from_to(1, 4096));
  v.field(c.centring, "centring",
          "What is taken off queries and keys before hashing in causal mode; paper mode has its own rule.");
  v.field(c.max_length, "max_length",
          "Length that dilation spreads its keys over: dilation = max_length / share of k.", "tokens",
          from_to(1, kMaxTokens));
  v.field(c.ranking_weight, "ranking_weight", "Weight alpha of key_selection's ranking loss, for each layer.",
          "", at_least(0));
}

void describe(AttentionConfig& c, Visitor& v) {
  v.field(c.n_heads, "n_heads", "Heads; head_dim = d_model / n_heads.", "heads", from_to(1, kMaxSize));
  v.field(c.window, "window", "A query reads this many keys, itself included; 0: all before it.", "tokens",
          from_to(0, kMaxTokens));
  v.field(c.rope, "rope", "Rotate queries and keys by their positions.");
  v.field(c.rope_theta, "rope_theta", "Base of the rotations' wavelengths.", "", above(0));
}

void describe(ModelConfig& c, Visitor& v) {
  v.field(c.mixer, "mixer",
          "Sequence mixers, by layer in turn: [mamba, attention] alternates, [mamba2] is the same in every "
          "layer. constructive is the fixed two-layer solution of docs/theory.md.");
  v.field(c.mode, "mode",
          "Statistics of the sparse branch: causal never looks ahead, paper computes what the official code "
          "does.");
  v.field(c.layers, "layers", "Blocks of norm and mixer.", "layers", from_to(1, 1000));
  v.field(c.d_model, "d_model", "Width of the residual stream.", "features", from_to(1, kMaxSize));
  v.field(c.expand, "expand", "d_inner = expand * d_model.", "", from_to(1, 64));
  v.field(c.d_state, "d_state", "State size N of each head.", "features", from_to(1, kMaxSize));
  v.field(c.n_heads, "n_heads", "Heads H of the mixer; head_dim = d_inner / n_heads.", "heads",
          from_to(1, kMaxSize));
  v.field(c.n_groups, "n_groups", "Groups G of heads that share B and C.", "groups", from_to(1, kMaxSize));
  v.field(c.dt_rank, "dt_rank", "Rank of Mamba's time step; 0: d_model / 16, rounded up.", "features",
          from_to(0, kMaxSize));
  v.field(c.d_conv, "d_conv", "Width of the causal convolution.", "tokens", from_to(1, 64));
  v.field(c.chunk_size, "chunk_size", "Chunk of the blockwise scan; changes speed and rounding alone.",
          "tokens", from_to(1, kMaxSize));
  v.field(c.mlp_ratio, "mlp_ratio",
          "Gated MLP behind every mixer, of width 2/3 * mlp_ratio * d_model rounded up to 256; 0: none.", "",
          from_to(0, 256));
  v.field(c.init_std, "init_std", "Standard deviation of initial linear and embedding weights.", "",
          above(0));
  v.section(c.attention, "attention", "The attention mixer.");
  v.section(c.sparse, "sparse", "The sparse attention branch beside Mamba and Mamba2.");
}

void describe(TrainConfig& c, Visitor& v) {
  v.field(c.seed, "seed", "Seed of initial weights, order of examples and hash matrices.", "", at_least(0));
  v.field(c.steps, "steps", "Updates of the weights; 0: save the initial ones.", "steps",
          from_to(0, kMaxIndex));
  v.field(c.batch_size, "batch_size", "Examples in a training batch.", "examples", from_to(1, kMaxSize));
  v.field(c.lr, "lr", "Learning rate after the warm-up.", "", above(0));
  v.field(c.schedule, "schedule",
          "Learning rate after the warm-up: constant, or a half cosine down to lr * lr_min_ratio.");
  v.field(c.warmup_steps, "warmup_steps", "Steps over which the learning rate rises linearly from 0.",
          "steps", from_to(0, kMaxIndex));
  v.field(c.lr_min_ratio, "lr_min_ratio", "The cosine schedule ends at lr times this.", "", from_to(0, 1));
  v.field(c.weight_decay, "weight_decay", "AdamW's decay, on every parameter.", "", at_least(0));
  v.field(c.beta1, "beta1", "AdamW's decay of the first moment.", "", from_below(0, 1));
  v.field(c.beta2, "beta2", "AdamW's decay of the second moment.", "", from_below(0, 1));
  v.field(c.eps, "eps", "AdamW's addition to the denominator.", "", above(0));
  v.field(c.grad_clip, "grad_clip", "Largest global gradient norm; 0: no clipping.", "", at_least(0));
  v.field(
      c.precision, "precision",
      "Types: fp32; bf16 activations and products over fp32 weights; or pure_bf16, weights, gradients and "
      "Adam's state in bf16 too.");
  v.field(c.device, "device", "Where to compute; auto: a CUDA device if there is one.");
  v.field(c.threads, "threads", "CPU threads; 0: all that the process may use.", "threads", from_to(0, 4096));
  v.field(c.validate_every, "validate_every", "Steps between validations.", "steps", from_to(1, kMaxIndex));
  v.field(c.validate_examples, "validate_examples", "Validation examples to read; 0: the whole split.",
          "examples", from_to(0, kMaxIndex));
  v.field(c.checkpoint_every, "checkpoint_every", "Steps between checkpoints.", "steps",
          from_to(1, kMaxIndex));
  v.field(c.log_every, "log_every", "Steps between lines of metrics.", "steps", from_to(1, kMaxIndex));
  v.field(c.target_accuracy, "target_accuracy", "Stop when validation accuracy reaches this; 0: never.",
          "fraction", from_to(0, 1));
  v.field(c.eval_batch_size, "eval_batch_size", "Examples in an evaluation batch.", "examples",
          from_to(1, kMaxSize));
  v.field(
      c.on_divergence, "on_divergence",
      "At a loss or gradient that is not finite: stop, or rewind to the last validation and go on from there "
      "with the batches behind the one that failed.");
  v.field(c.max_rewinds, "max_rewinds", "Rewinds before the run stops as diverged.", "",
          from_to(0, kMaxSize));
  v.field(c.keep_last, "keep_last",
          "Training checkpoints to keep: the newest, and older ones to go on from where it is damaged.",
          "checkpoints", from_to(1, kMaxSize));
  v.field(c.on_save_error, "on_save_error",
          "When a checkpoint or metrics cannot be written: stop, or continue and try again at the next "
          "checkpoint.");
}

void describe(Config& c, Visitor& v) {
  v.field(c.name, "name", "Label of the run's row in tables.", "", length_up_to(200));
  v.section(c.task, "task", "What the examples are.");
  v.section(c.data, "data", "Where examples come from, and how many.");
  v.section(c.model, "model", "The model's architecture.");
  v.section(c.train, "train", "Optimisation, validation and the machine.");
}

}  // namespace

std::vector<Entry> entries_of(Config& config) {
  Visitor visitor;
  describe(config, visitor);
  return visitor.take();
}

std::vector<Field> fields_of(Config& config) {
  std::vector<Field> fields;
  for (Entry& entry : entries_of(config)) {
    if (auto* field = std::get_if<Field>(&entry)) fields.push_back(std::move(*field));
  }
  return fields;
}

std::string format_double(double value) {
  std::array<char, 32> buffer;
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), result.ptr};
}

std::string quote(std::string_view text) {
  static const char* digits = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

namespace {
std::string bound(double value) {
  return std::floor(value) == value && std::abs(value) < 1e15 ? std::to_string(static_cast<int64_t>(value))
                                                              : format_double(value);
}
}  // namespace

std::string Range::text() const {
  const bool has_low = std::isfinite(low), has_high = std::isfinite(high);
  if (has_low && has_high)
    return bound(low) + (low_open ? " < x" : " <= x") + (high_open ? " < " : " <= ") + bound(high);
  if (has_low) return (low_open ? "> " : ">= ") + bound(low);
  if (has_high) return (high_open ? "< " : "<= ") + bound(high);
  return "";
}

std::string_view Field::leaf() const {
  const std::string_view view = key;
  return view.substr(view.rfind('.') + 1);  // npos + 1 is 0: a key without a dot is its own leaf
}

std::string Field::type() const {
  return std::visit(
      [](auto* pointer) -> std::string {
        using T = std::remove_pointer_t<decltype(pointer)>;
        if constexpr (std::is_same_v<T, bool>)
          return "true or false";
        else if constexpr (std::is_same_v<T, int64_t>)
          return "integer";
        else if constexpr (std::is_same_v<T, double>)
          return "number";
        else if constexpr (std::is_same_v<T, std::string>)
          return "text";
        else if constexpr (std::is_enum_v<T>)
          return "one of " + all_names<T>();
        else if constexpr (std::is_same_v<T, std::vector<int64_t>>)
          return "list of integers";
        else
          return "list of " + all_names<typename T::value_type>();
      },
      value);
}

std::string Field::text() const {
  return std::visit(
      [](auto* pointer) -> std::string {
        using T = std::remove_pointer_t<decltype(pointer)>;
        if constexpr (std::is_same_v<T, bool>)
          return *pointer ? "true" : "false";
        else if constexpr (std::is_same_v<T, int64_t>)
          return std::to_string(*pointer);
        else if constexpr (std::is_same_v<T, double>)
          return format_double(*pointer);
        else if constexpr (std::is_same_v<T, std::string>)
          return quote(*pointer);
        else if constexpr (std::is_enum_v<T>)
          return std::string(name_of(*pointer));
        else {
          std::string text = "[";
          for (size_t i = 0; i < pointer->size(); ++i) {
            if (i > 0) text += ", ";
            if constexpr (std::is_enum_v<typename T::value_type>)
              text += name_of((*pointer)[i]);
            else
              text += std::to_string((*pointer)[i]);
          }
          return text + "]";
        }
      },
      value);
}

}  // namespace hax
