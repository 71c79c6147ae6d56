// Forgetting MQAR (Zoology, zoology/data/forgetting_mqar.py): some keys get a new value, and the last counts.
//
// Behind the K = num_kv_pairs pairs of MQAR stand num_updates more: distinct ones of the keys in random
// order, each with a value that differs from the key's first one and may be another key's. Every key is asked
// once (key_value_recall.h), its answer is the value given last.
//
// Order of draws: keys, values, keys to update, new values, slots, fillers.
#pragma once

#include "data_gen/key_value_recall.h"
#include "lib/config/config.h"

namespace hax {

class MqarForgetting : public KeyValueRecall {
 public:
  explicit MqarForgetting(const MqarForgettingConfig& config);  // throws UsageError naming the key

  std::string parameters() const override;
  std::string symbol(int32_t token, Role role) const override;
  // The value that the key had before; a value of another key; any other value; none.
  std::vector<std::string> error_kinds() const override;

 protected:
  void draw_context(RandomStream& random, const Shape& shape, int32_t* tokens) const override;
  std::string context_fault(const std::vector<int32_t>& tokens, const Shape& shape) const override;
  double log2_contexts(const Shape& shape) const override;
  bool is_value(int32_t token) const override {
    return token >= config_.vocab_size / 2 && token < config_.vocab_size;
  }

 private:
  MqarForgettingConfig config_;
};

}  // namespace hax
