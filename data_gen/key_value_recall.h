// What the MQAR tasks share: a context of entries (key, value), then slots in which keys are asked again.
//
//   context  entries end to end, each a key of `key_width` tokens and its value: C tokens. The first `keys`
//            entries have distinct keys; later ones give some of those keys another value, and the last
//            counts.
//   slots    slot g at position C + g (key_width + 1), while that many tokens are left, with weight
//            (g + 1)^(power_a - 1). `keys` slots are drawn without replacement, one after the other: the i-th
//            drawn asks for the key of entry i, so that early keys tend to be asked early. The key's last
//            token is scored; the label is its value, which never enters the input.
//   fillers  every other token is 0, or, under random_non_queries, uniform over [0, V).
//
// Order of draws: the context, slots, fillers. Fillers come last, so context and labels are the same with and
// without random_non_queries.
#pragma once

#include "data_gen/size_schedule.h"
#include "data_gen/task.h"

namespace hax {

class KeyValueRecall : public Task {
 public:
  const DataSpec& spec() const override { return spec_; }
  int64_t sizes() const override { return static_cast<int64_t>(shapes_.size()); }
  int64_t size_at(int64_t index) const override { return schedule_.at(index); }
  int64_t count_at(int64_t size, int64_t n) const override { return schedule_.count(size, n); }
  std::string size_name(int64_t size) const override;
  double log2_distinct(int64_t size) const override;
  void example(RandomStream& random, int64_t index, Example& result) const override;
  std::string fault(const Example& example) const override;
  std::vector<Role> roles(const Example& example) const override;
  std::vector<int32_t> oracle(const Example& example) const override;
  std::vector<int32_t> sources(const Example& example) const override;
  size_t error_kind(const Example& example, size_t i, int32_t predicted) const override;

 protected:
  struct Shape {
    int64_t length;
    int64_t keys;
    int64_t entries;
    std::vector<int32_t> slices;
    std::vector<double> mean_wait;  // (slots) 1 / weight
    int64_t context_length = 0;

    int64_t slots() const { return static_cast<int64_t>(mean_wait.size()); }
  };
  struct Options {
    std::string name;  // also the section of the config
    int64_t key_width;
    int64_t vocab_size;
    double power_a;
    bool random_non_queries;
    std::vector<std::string> slice_columns;
    int64_t values;  // how many tokens are values
    std::vector<TokenSlot> slots = {};
  };

  // Examples of the shapes (length, keys, entries, slices) stand in the schedule's order. Throws UsageError
  // when power_a is out of range for a length.
  KeyValueRecall(const Options& options, std::vector<Shape> shapes, SizeSchedule schedule);

  // Draws the context into tokens[0 .. context_length).
  virtual void draw_context(RandomStream& random, const Shape& shape, int32_t* tokens) const = 0;
  // As fault(), for the context; every token is inside the vocabulary.
  virtual std::string context_fault(const std::vector<int32_t>& tokens, const Shape& shape) const = 0;
  virtual double log2_contexts(const Shape& shape) const = 0;  // how many there are
  virtual bool is_value(int32_t token) const = 0;

  static std::string wrong(const std::vector<int32_t>& tokens, int64_t position, const std::string& wanted);

 private:
  int64_t stride() const { return options_.key_width + 1; }
  // The key of the entry or slot that begins there, as one number.
  uint64_t key_at(const std::vector<int32_t>& tokens, int64_t position) const;
  const Shape* shape_of(const Example& example) const;  // nullptr: none has these slices

  Options options_;
  std::vector<Shape> shapes_;
  SizeSchedule schedule_;
  DataSpec spec_;
};

}  // namespace hax
