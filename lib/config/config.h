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

enum class TaskKind { joint_recall, mqar };
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

struct MqarConfig {
  int64_t vocab_size = 8192;
  int64_t input_seq_len = 64;
  int64_t num_kv_pairs = 8;
  double power_a = 0.01;
  bool random_non_queries = true;
};

struct TaskConfig {
  TaskKind name = TaskKind::joint_recall;
  JointRecallConfig joint_recall;
  MqarConfig mqar;
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
  int64_t d_qk = 0;              // 0: d_state
  HashRule hash_rule = HashRule::sign;
  int64_t hash_bits = 8;                       // sign: 2^h bins; argmax: h bins
  Centring centring = Centring::running_mean;  // causal mode only
  int64_t max_length = 2048;                   // dilation = max_length / (share of k)
  double ranking_weight = 0.1;                 // alpha of the ranking loss

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
  int64_t d_qk() const { return sparse.d_qk > 0 ? sparse.d_qk : d_state; }
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
};

struct Config {
  std::string name;  // row label in tables
  TaskConfig task;
  DataConfig data;
  ModelConfig model;
  TrainConfig train;
};

}  // namespace hax
