// A mixer maps a packed sequence (T, d_model) to (T, d_model), each position from those before it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lib/config/config.h"
#include "lib/model/draws.h"
#include "lib/model/parameters.h"
#include "lib/model/sparse_branch.h"
#include "lib/model/token_codes.h"

namespace hax {

struct MixerOutput {
  at::Tensor hidden;    // (T, d_model), x's dtype
  BranchOutput branch;  // empty without a sparse branch
};

class Mixer {
 public:
  virtual ~Mixer() = default;
  // x (T, d_model) in the compute dtype; weights are cast to it.
  virtual MixerOutput forward(const at::Tensor& x, const ops::PackedLayout& layout,
                              const Draws& draws) const = 0;
  // Decoding (lib/model/decoding.h): the state of an empty sequence, and the next token x (1, d_model) of it
  // -> (1, d_model), what forward gives at that position under the same draws, which are evaluation's. The
  // hash matrices are read once, by initial_state. Throws std::invalid_argument when decoding_fault has a
  // reason.
  virtual std::unique_ptr<MixerState> initial_state(const Draws& draws, at::ScalarType compute) const = 0;
  virtual at::Tensor step(const at::Tensor& x, MixerState& state) const = 0;
};

// Registers the mixer's parameters under `prefix` ("layers.0.mixer."). `codes` is read by `constructive`
// alone, which throws std::invalid_argument without it.
std::unique_ptr<Mixer> make_mixer(const ModelConfig& config, int64_t layer, uint64_t seed,
                                  const std::string& prefix, ParameterSet& parameters,
                                  const TokenCodes* codes = nullptr);

}  // namespace hax
