// The typed configuration. One visitor (fields.h) gives every field its documentation, unit, range and
// default; reading, writing, checking, `hax config` and docs/configuration.md all walk that visitor.
//
// Layers: defaults here < files in the order given < --set key=value.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace hax {

enum class TaskKind {
  joint_recall,
  multilevel_joint_recall,
  noisy_joint_recall,
  mqar,
  mqar_compositional,
  mqar_forgetting,
  induction_heads,
  selective_copying
};
enum class DataSource { file, stream };
enum class MixerKind { mamba, mamba2, attention, constructive };
enum class PatternKind { full, sliding_window, sink, dilated, lsh, key_selection };
enum class Statistics { causal, paper };  // spec: "two statistics modes"
enum class Centring { running_mean, none };
enum class HashRule { sign, argmax };
enum class Schedule { constant, cosine };
// Types of activations and products / of weights, gradients and Adam's state: fp32 is fp32 / fp32, bf16 is
// bf16 / fp32, pure_bf16 is bf16 / bf16, as the official code trains.
enum class Precision { fp32, bf16, pure_bf16 };
enum class DeviceKind { automatic, cpu, cuda };
enum class OnDivergence { stop, rewind };   // at a loss or gradient that is not finite
enum class OnSaveError { stop, carry_on };  // when a file of the run cannot be written

struct JointRecallConfig {
  int64_t n_context_min = 5;
  int64_t n_context_max = 16;
  int64_t n_key_min = 5;
  int64_t n_key_max = 16;
  int64_t n_value = 16;
  int64_t vocab_size = 0;  // 0: the smallest that holds every id, but at least the paper's 100

  // Ids 0 .. 9 are reserved; then values, keys and contexts (spec: "token ids").
  int64_t ids() const { return 10 + n_value + n_key_max + n_context_max; }
  // BOS, the table twice with SEP between, PAD up to the largest table.
  int64_t padded_tokens() const { return 2 * n_context_max * (2 * n_key_max + 1) + 2; }
};

struct MultilevelJointRecallConfig {
  std::vector<int64_t> levels = {4, 4, 4};  // symbols of each level, the keys last
  int64_t n_value = 16;
  int64_t vocab_size = 0;  // 0: the smallest that holds every id, but at least the paper's 100

  int64_t ids() const;            // 10 reserved, then values, then the levels from the last to the first
  int64_t padded_tokens() const;  // BOS, the nested table twice with SEP between; at most 2^40 is told
};

struct NoisyJointRecallConfig {
  int64_t n_context_min = 4;
  int64_t n_context_max = 4;
  int64_t n_key_min = 4;
  int64_t n_key_max = 4;
  int64_t n_value = 16;
  int64_t length = 1024;        // of the model's input
  int64_t n_noise = 16;         // noise tokens to draw from
  bool noise_in_blocks = true;  // between the pairs of a block too; false: between blocks alone
  int64_t vocab_size = 0;       // 0: the smallest that holds every id, but at least 100

  JointRecallConfig table() const { return {n_context_min, n_context_max, n_key_min, n_key_max, n_value, 0}; }
  int64_t ids() const { return table().ids() + n_noise; }
  int64_t padded_tokens() const { return length + 1; }  // the model never reads the last answer
};

struct MqarConfig {
  int64_t vocab_size = 8192;
  std::vector<int64_t> input_seq_len = {64};  // of each size
  std::vector<int64_t> num_kv_pairs = {8};    // of each size
  std::vector<int64_t> weights;               // relative numbers of examples of the sizes; empty: equal
  double power_a = 0.01;
  bool random_non_queries = true;

  int64_t padded_tokens() const {
    return input_seq_len.empty() ? 0 : *std::max_element(input_seq_len.begin(), input_seq_len.end());
  }
};

struct MqarCompositionalConfig {
  int64_t vocab_size = 8192;
  int64_t input_seq_len = 64;
  int64_t num_kv_pairs = 9;  // a square: every first token with every second one
  double power_a = 0.01;
  bool random_non_queries = true;
};

struct MqarForgettingConfig {
  int64_t vocab_size = 8192;
  int64_t input_seq_len = 64;
  int64_t num_kv_pairs = 8;
  int64_t num_updates = 4;
  double power_a = 0.01;
  bool random_non_queries = true;
};

struct InductionHeadsConfig {
  int64_t length = 256;
  int64_t n_token = 16;

  int64_t ids() const { return 10 + n_token; }  // 0 .. 9 are reserved
};

struct SelectiveCopyingConfig {
  int64_t length = 4096;  // data and noise, before the separator
  int64_t n_data = 16;    // tokens to copy
  int64_t n_token = 15;   // data tokens to draw from
  int64_t n_noise = 1;    // noise tokens to draw from

  int64_t ids() const { return 10 + n_token + n_noise; }         // 0 .. 9 are reserved
  int64_t padded_tokens() const { return length + 1 + n_data; }  // the separator and the copy
};

struct TaskConfig {
  TaskKind name = TaskKind::joint_recall;
  JointRecallConfig joint_recall;
  MultilevelJointRecallConfig multilevel_joint_recall;
  NoisyJointRecallConfig noisy_joint_recall;
  MqarConfig mqar;
  MqarCompositionalConfig mqar_compositional;
  MqarForgettingConfig mqar_forgetting;
  InductionHeadsConfig induction_heads;
  SelectiveCopyingConfig selective_copying;
};

struct DataConfig {
  DataSource source = DataSource::file;
  std::string path;  // dataset folder: training data of `file`, evaluation splits of both sources
  int64_t seed = 1;
  int64_t train_examples = 20000;
  int64_t valid_examples = 1000;
  int64_t test_examples = 1000;
};

struct SparseConfig {
  std::vector<PatternKind> patterns;  // empty: no branch
  int64_t k = 64;                     // keys a query may attend to, split evenly over the patterns
  std::vector<int64_t> budgets;  // keys of each pattern, in the order of `patterns`; empty: the even split
  int64_t d_qk = 0;              // 0: d_state; of constructive mixers always d_model
  HashRule hash_rule = HashRule::sign;
  int64_t hash_bits = 8;                       // sign: 2^h bins; argmax: h bins
  Centring centring = Centring::running_mean;  // causal mode only
  int64_t max_length = 2048;                   // dilation = max_length / (share of k)
  double ranking_weight = 0.1;                 // alpha of the ranking loss

  // Keys that a query may attend to by all patterns together, if they overlap nowhere.
  int64_t total_share() const {
    int64_t sum = 0;
    for (size_t i = 0; i < patterns.size(); ++i) sum += share(i);
    return budgets.empty() && !patterns.empty() ? k : sum;
  }
  // Keys that a query may attend to by pattern i.
  int64_t share(size_t i) const {
    return budgets.empty() ? k / static_cast<int64_t>(patterns.size()) : budgets.at(i);
  }
};

// The attention mixer.
struct AttentionConfig {
  int64_t n_heads = 4;
  int64_t window = 0;  // query i reads keys j <= i with i - j < window; 0: all of them
  bool rope = true;
  double rope_theta = 10000.0;
};

struct ModelConfig {
  std::vector<MixerKind> mixer = {MixerKind::mamba2};  // of layer i: mixer[i % mixer.size()]
  Statistics mode = Statistics::causal;
  int64_t layers = 2;
  int64_t d_model = 64;
  int64_t expand = 2;
  int64_t d_state = 32;
  int64_t n_heads = 8;
  int64_t n_groups = 1;
  int64_t dt_rank = 0;  // 0: ceil(d_model / 16)
  int64_t d_conv = 4;
  int64_t chunk_size = 64;
  int64_t mlp_ratio = 0;  // gated MLP behind every mixer; 0: none
  double init_std = 0.1;
  AttentionConfig attention;
  SparseConfig sparse;

  int64_t d_inner() const { return expand * d_model; }
  int64_t head_dim() const { return d_inner() / n_heads; }
  int64_t d_qk() const {
    if (has_mixer(MixerKind::constructive)) return d_model;
    return sparse.d_qk > 0 ? sparse.d_qk : d_state;
  }
  int64_t dt_rank_or_default() const { return dt_rank > 0 ? dt_rank : (d_model + 15) / 16; }
  MixerKind mixer_of(int64_t layer) const { return mixer.at(static_cast<size_t>(layer) % mixer.size()); }
  bool has_mixer(MixerKind kind) const { return std::find(mixer.begin(), mixer.end(), kind) != mixer.end(); }
};

struct TrainConfig {
  int64_t seed = 1;
  int64_t steps = 2000;
  int64_t batch_size = 64;
  double lr = 2e-3;
  Schedule schedule = Schedule::constant;
  int64_t warmup_steps = 100;
  double lr_min_ratio = 0.0;  // cosine ends at lr * this
  double weight_decay = 0.01;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double grad_clip = 0.0;  // global norm; 0: off
  Precision precision = Precision::fp32;
  DeviceKind device = DeviceKind::automatic;
  int64_t threads = 0;  // 0: all cores
  int64_t validate_every = 500;
  int64_t validate_examples = 0;  // 0: the whole split
  int64_t checkpoint_every = 500;
  int64_t log_every = 50;
  double target_accuracy = 0.0;  // stop when validation reaches it; 0: never
  int64_t eval_batch_size = 256;
  OnDivergence on_divergence = OnDivergence::stop;
  int64_t max_rewinds = 3;
  int64_t keep_last = 2;  // training checkpoints, the newest among them
  OnSaveError on_save_error = OnSaveError::stop;
};

struct Config {
  std::string name;  // row label in tables
  TaskConfig task;
  DataConfig data;
  ModelConfig model;
  TrainConfig train;
};

}  // namespace hax
