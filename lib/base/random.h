// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC'11). There is no state: a draw is a pure function of
// (seed, purpose, layer, step, index, position in the stream), so any draw can be repeated alone.
#pragma once

#include <array>
#include <cstdint>

namespace hax {

// The bijection itself, on a 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// What a stream is for. Values are part of the format of datasets and runs: never renumber.
enum class Purpose : uint8_t {
  example = 1,         // layer = split, step = redraw attempt, index = example
  shuffle = 2,         // step = epoch
  init = 3,            // layer = layer, index = parameter's place in its layer
  hash_matrix = 4,     // training: layer = layer, step = training step
  eval_hash_matrix = 5,  // layer = layer
  ranking_sample = 6,  // layer = layer, step = training step, index = sequence in the batch
  stream_example = 7,  // index = example, step = redraw attempt
  test = 255,
};

struct StreamKey {
  uint64_t seed = 0;
  Purpose purpose = Purpose::test;
  uint32_t layer = 0;  // < 2^24
  uint32_t step = 0;
  uint32_t index = 0;
};

// A stream of 2^34 words. Word w is word w % 4 of Philox at counter (w / 4, index, step, purpose | layer << 8).
class RandomStream {
 public:
  explicit RandomStream(const StreamKey& key);

  uint32_t next();                   // uniform over all 32-bit words
  uint32_t below(uint32_t bound);    // uniform over [0, bound), without bias (Lemire's rejection); bound > 0
  double uniform();                  // uniform over (0, 1), 53 bits, two words; never 0 or 1
  float normal();                    // N(0, 1), Box-Muller in double precision, four words, one result

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
};

}  // namespace hax
