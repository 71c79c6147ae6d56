// One example and a packed batch of them: the contract between tasks, files, training and evaluation.
//
// PAD does not exist here. An example is its real tokens; a batch is the examples laid end to end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hax {

// How the scored answers relate to the tokens.
enum class TargetKind {
  next_token,  // the answer at position p is tokens[p + 1]; the model reads tokens[:-1] of the padded row
  label,       // answers are stored beside the tokens; the model reads the whole row
};

struct Example {
  std::vector<int32_t> tokens;   // real tokens, answers included under next_token
  std::vector<int32_t> scored;   // ascending positions at which the model's prediction counts
  std::vector<int32_t> targets;  // the right token at each of them
  std::vector<int32_t> slices;   // one value for each of the task's slice columns
};

// Token ids [first, first + count) with one part in a recall table: a level of contexts, the keys, the values.
struct TokenSlot {
  std::string name;  // "context"
  int32_t first = 0;
  int32_t count = 0;
  bool is_value = false;
  bool operator==(const TokenSlot&) const = default;
};

// What a model must know about the data it reads. Equal for a stream and for a file made by it.
struct DataSpec {
  std::string task;  // "joint_recall"
  int64_t vocab_size = 0;
  int64_t padded_tokens = 0;  // length of the padded row in the official layout, PAD included
  TargetKind target_kind = TargetKind::next_token;
  std::vector<std::string> slice_columns;  // e.g. {"n_context", "n_key"}
  double chance = 0.0;                     // accuracy of uniform guessing among the possible answers
  // Levels from the outermost to the keys, then the values; an entry of the table is named by one token of
  // each level. Other ids say nothing about it. Empty: not known, or no task of this kind.
  std::vector<TokenSlot> slots;
  // Longest model input, and the length that `paper` statistics count over.
  int64_t input_length() const {
    return target_kind == TargetKind::next_token ? padded_tokens - 1 : padded_tokens;
  }
};

// Model inputs packed end to end: sequence b is tokens[cu_seqlens[b] .. cu_seqlens[b + 1]).
struct Batch {
  std::vector<int32_t> tokens;      // (T)
  std::vector<int32_t> cu_seqlens;  // (B + 1)
  std::vector<int32_t> scored;      // (S) indices into tokens, ascending
  std::vector<int32_t> targets;     // (S)
  std::vector<int32_t> cu_scored;   // (B + 1) sequence b owns scored[cu_scored[b] .. cu_scored[b + 1])
  std::vector<int32_t> slices;      // (B, slice columns)
  int64_t padded_length = 0;        // DataSpec::input_length()

  int64_t size() const { return static_cast<int64_t>(cu_seqlens.size()) - 1; }
  int64_t max_seqlen() const;
};

Batch empty_batch(const DataSpec& spec);
// Appends an example as the model reads it: at most input_length() tokens, so that a row which fills the
// padded layout loses its last token, as tokens[:-1] of the official code does.
void append(const DataSpec& spec, const Example& example, Batch& batch);

// Examples by index: a split of a file, or a task drawn on the fly.
class ExampleSource {
 public:
  virtual ~ExampleSource() = default;
  virtual const DataSpec& spec() const = 0;
  virtual int64_t size() const = 0;                                    // -1: endless
  virtual void append_example(int64_t index, Batch& batch) const = 0;  // safe from many threads
  // Identifies the examples' content: equal fingerprints, equal data.
  virtual std::string fingerprint() const = 0;
};

}  // namespace hax
