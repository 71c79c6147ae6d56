// Multi-query associative recall (Arora et al., "Zoology", ICLR 2024; zoology/data/multiquery_ar.py).
//
// K = num_kv_pairs distinct keys of [1, V/2) and distinct values of [V/2, V) open the sequence as
// k0 v0 k1 v1 ...; each key is asked once (key_value_recall.h). Order of draws: keys, values, slots, fillers.
//
// input_seq_len and num_kv_pairs list the sizes of a mix, `weights` their relative numbers of examples.
#pragma once

#include "data_gen/key_value_recall.h"
#include "lib/config/config.h"

namespace hax {

class Mqar : public KeyValueRecall {
 public:
  explicit Mqar(const MqarConfig& config);  // throws UsageError naming the key

  // Of one size, the two lists are plain numbers and there are no weights.
  std::string parameters() const override;
  std::string symbol(int32_t token, Role role) const override;
  // A value of another key of the context; any other value; none.
  std::vector<std::string> error_kinds() const override;

  const MqarConfig& config() const { return config_; }

 protected:
  void draw_context(RandomStream& random, const Shape& shape, int32_t* tokens) const override;
  std::string context_fault(const std::vector<int32_t>& tokens, const Shape& shape) const override;
  double log2_contexts(const Shape& shape) const override;
  bool is_value(int32_t token) const override {
    return token >= config_.vocab_size / 2 && token < config_.vocab_size;
  }

 private:
  static std::vector<Shape> shapes(const MqarConfig& config);

  MqarConfig config_;
};

}  // namespace hax
