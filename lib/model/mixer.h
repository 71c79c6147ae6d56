// A mixer maps a packed sequence (T, d_model) to (T, d_model), each position from those before it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lib/config/config.h"
#include "lib/model/draws.h"
#include "lib/model/parameters.h"
#include "lib/model/sparse_branch.h"

namespace hax {

struct MixerOutput {
  at::Tensor hidden;    // (T, d_model), x's dtype
  at::Tensor aux_loss;  // scalar; undefined where the mixer has none, or outside training
  BranchOutput branch;  // empty without a sparse branch
};

class Mixer {
 public:
  virtual ~Mixer() = default;
  // x (T, d_model) in the compute dtype; weights are cast to it.
  virtual MixerOutput forward(const at::Tensor& x, const ops::PackedLayout& layout,
                              const Draws& draws) const = 0;
  // Bytes that one sequence holds while decoding, after `length` tokens, in fp32.
  virtual int64_t state_bytes(int64_t length) const = 0;
};

// Registers the mixer's parameters under `prefix` ("layers.0.mixer.").
std::unique_ptr<Mixer> make_mixer(const ModelConfig& config, int64_t layer, uint64_t seed,
                                  const std::string& prefix, ParameterSet& parameters);

}  // namespace hax
