// Decoding token by token: what a model remembers between two tokens of one sequence, and what that costs.
//
// Step by step gives what the packed forward gives under evaluation's draws, whose hash matrices are fixed.
// The statistics of `paper` mode look ahead, so most of its models cannot be decoded: decoding_fault says
// why.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/ops/torch.h"

namespace hax {

// Bytes that one sequence holds, counted on the state itself.
struct StateBytes {
  int64_t recurrent = 0;  // of one size for every length: scans, convolution windows, running sums
  int64_t kept_keys = 0;  // keys and values that a later query can still reach, and the lists that find them

  int64_t total() const { return recurrent + kept_keys; }
  StateBytes& operator+=(const StateBytes& other) {
    recurrent += other.recurrent;
    kept_keys += other.kept_keys;
    return *this;
  }
};

// What one mixer remembers of one sequence.
class MixerState {
 public:
  virtual ~MixerState() = default;
  virtual StateBytes bytes() const = 0;
};

// What a whole model remembers of one sequence; LanguageModel::initial_state makes it.
struct DecodingState {
  at::ScalarType compute;                           // of activations, as in forward
  std::vector<std::unique_ptr<MixerState>> layers;  // one a layer

  StateBytes bytes() const;
};

// Why a model cannot run token by token; "" when it can.
std::string decoding_fault(const ModelConfig& config);

}  // namespace hax
