// The two-layer solution of Prop. 3.2 and C.1 (spec section 5), set rather than trained, over the embedding
// of lib/model/token_codes.h. With s = sign(x), which undoes the scale of the norm before a mixer:
//
//   layer 0   a generalised SSM remembers what was last said of every slot:
//               h = overwrite(s),  hidden = h - s                       residual stream: h
//   layer 1   an LSH attention looks up the entry that a key token asks for:
//               K = [levels, 0, is_value]   Q = kSharpness [levels, 0, +1]   V = [0, value, is_value]
//               hidden = attention(Q, K, V) - s                         residual stream: V
//
// Q and the K of the asked entry's value token have equal signs, so they share a bin under every hash matrix;
// among the keys of the bin its score leads by 2 kSharpness or more. The stream then is the embedding of the
// answer but for its levels, and the tied head picks it. What can go wrong is that more than k keys
// of the bin are nearer: hash_bits and k must fit the table's size (docs/theory.md).
//
// Neither layer has parameters. The recurrent state is one number for each feature in use, O(w log n).
#pragma once

#include "lib/model/mixer.h"
#include "lib/model/token_codes.h"

namespace hax {

class OverwriteMixer : public Mixer {
 public:
  explicit OverwriteMixer(const TokenCodes& codes) : width_(codes.width()), device_(codes.device()) {}
  MixerOutput forward(const at::Tensor& x, const ops::PackedLayout& layout,
                      const Draws& draws) const override;
  std::unique_ptr<MixerState> initial_state(const Draws& draws, at::ScalarType compute) const override;
  at::Tensor step(const at::Tensor& x, MixerState& state) const override;

 private:
  struct State;
  int64_t width_;  // features in use; the others are 0 for every token
  at::Device device_;
};

class LookupMixer : public Mixer {
 public:
  // A power of two, so that Q has the very signs of its code; e^-32 is far below what fp32 can add to 1.
  static constexpr double kSharpness = 16.0;

  LookupMixer(const ModelConfig& config, int64_t layer, const TokenCodes& codes);
  MixerOutput forward(const at::Tensor& x, const ops::PackedLayout& layout,
                      const Draws& draws) const override;
  std::unique_ptr<MixerState> initial_state(const Draws& draws, at::ScalarType compute) const override;
  at::Tensor step(const at::Tensor& x, MixerState& state) const override;

 private:
  struct State;
  struct Projected {
    at::Tensor K, Q, V;  // (T, d_model)
  };
  Projected project(const at::Tensor& signs) const;

  const ModelConfig config_;
  int64_t layer_;
  at::Tensor key_mask_, value_mask_, query_mask_, asking_;  // (d_model); asking_ is what every query adds
};

}  // namespace hax
