// Associative recall small enough to train in a test: two keys, each with a value, then both asked again.
// tokens: k0 v k1 v k0 v k1 v with keys {1, 2}, values {3 .. 6}; scored at the asked keys.
#pragma once

#include "lib/base/random.h"
#include "lib/data/example.h"

namespace hax::test {

class ToySource : public ExampleSource {
 public:
  ToySource(uint64_t seed, int64_t size) : seed_(seed), size_(size) {
    spec_.task = "toy";
    spec_.vocab_size = 8;
    spec_.padded_tokens = 8;
    spec_.slice_columns = {"first_key"};
    spec_.chance = 0.25;
  }
  const DataSpec& spec() const override { return spec_; }
  int64_t size() const override { return size_; }
  std::string fingerprint() const override { return "toy-" + std::to_string(seed_); }
  void append_example(int64_t index, Batch& batch) const override {
    RandomStream stream({seed_, Purpose::test, 0, 0, static_cast<uint32_t>(index)});
    const int32_t v[2] = {3 + static_cast<int32_t>(stream.below(4)),
                          3 + static_cast<int32_t>(stream.below(4))};
    const auto first = static_cast<int32_t>(stream.below(2)), asked = static_cast<int32_t>(stream.below(2));
    Example e;
    for (int32_t key : {first, 1 - first, asked, 1 - asked}) {
      e.tokens.push_back(1 + key);
      e.tokens.push_back(v[key]);
    }
    e.scored = {4, 6};
    e.targets = {e.tokens[5], e.tokens[7]};
    e.slices = {first};
    append(spec_, e, batch);
  }

 private:
  uint64_t seed_;
  int64_t size_;
  DataSpec spec_;
};

// A model and a run small enough for a unit test, with every part that draws random numbers.
inline Config toy_config() {
  Config config;
  config.name = "toy";
  auto& m = config.model;
  m.d_model = 16;
  m.d_state = 4;
  m.n_heads = 2;
  m.layers = 2;
  m.sparse.patterns = {PatternKind::lsh, PatternKind::key_selection};
  m.sparse.k = 4;
  m.sparse.hash_bits = 2;
  auto& t = config.train;
  t.steps = 30;
  t.batch_size = 8;
  t.lr = 5e-3;
  t.warmup_steps = 5;
  t.validate_every = 10;
  t.checkpoint_every = 7;
  t.log_every = 3;
  t.threads = 1;
  t.device = DeviceKind::cpu;
  return config;
}

// The same for a GPU, of sizes whose steps are captured as CUDA graphs.
inline Config captured_config() {
  Config config = toy_config();
  auto& m = config.model;
  m.d_model = 64;
  m.d_state = 16;
  m.n_heads = 8;
  m.sparse.k = 24;
  m.sparse.hash_bits = 4;
  config.train.precision = Precision::bf16;
  config.train.device = DeviceKind::cuda;
  return config;
}

}  // namespace hax::test
