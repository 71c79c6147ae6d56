// Compositional MQAR (Zoology, zoology/data/compositional_ar.py): a key is two tokens, and neither tells the
// value alone.
//
// num_kv_pairs = s^2. s first tokens of [1, V/3) and s second tokens of [V/3, 2 (V/3)) make s^2 keys, which
// stand in random order, each followed by its value; values are distinct, of [2 (V/3), V). Both tokens of a
// key are asked in a slot of three (key_value_recall.h), the second is scored.
//
// Order of draws: first tokens, second tokens, order of the keys, values, slots, fillers.
#pragma once

#include "data_gen/key_value_recall.h"
#include "lib/config/config.h"

namespace hax {

class MqarCompositional : public KeyValueRecall {
 public:
  explicit MqarCompositional(const MqarCompositionalConfig& config);  // throws UsageError naming the key

  std::string parameters() const override;
  std::string symbol(int32_t token, Role role) const override;
  // A value of a key that shares one token with the right one; of any other key; any other value; none.
  std::vector<std::string> error_kinds() const override;

 protected:
  void draw_context(RandomStream& random, const Shape& shape, int32_t* tokens) const override;
  std::string context_fault(const std::vector<int32_t>& tokens, const Shape& shape) const override;
  double log2_contexts(const Shape& shape) const override;
  bool is_value(int32_t token) const override { return token >= 2 * third_ && token < config_.vocab_size; }

 private:
  MqarCompositionalConfig config_;
  int64_t third_;
  int64_t side_;  // s
};

}  // namespace hax
