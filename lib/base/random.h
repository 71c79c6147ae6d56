// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC'11). There is no state: a draw is a pure function of
// (seed, purpose, layer, step, index, position in the stream), so any draw can be repeated alone.
#pragma once

#include <array>
#include <cstdint>

namespace hax {

// The bijection itself, on a 128-bit counter and a 64-bit key. Inline: datasets draw words by the billion.
inline std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// What a stream is for. Values are part of the format of datasets and runs: never renumber.
enum class Purpose : uint8_t {
  example = 1,           // layer = split, step = redraw attempt, index = example
  shuffle = 2,           // step = epoch
  init = 3,              // layer = layer, index = parameter's place in its layer
  hash_matrix = 4,       // training: layer = layer, step = training step
  eval_hash_matrix = 5,  // layer = layer
  ranking_sample = 6,    // layer = layer, step = training step, index = sequence in the batch
  stream_example = 7,    // index = example, step = redraw attempt
  test = 255,
};

struct StreamKey {
  uint64_t seed = 0;
  Purpose purpose = Purpose::test;
  uint32_t layer = 0;  // < 2^24
  uint32_t step = 0;
  uint32_t index = 0;
};

// A stream of 2^34 words, after which it repeats. Word w is word w % 4 of Philox at counter
// (w / 4, index, step, purpose | layer << 8) under the key (low half of the seed, high half).
class RandomStream {
 public:
  explicit RandomStream(const StreamKey& key);  // throws std::invalid_argument when layer >= 2^24

  // Uniform over all 32-bit words.
  uint32_t next() {
    if (used_ == 4) {
      block_ = philox4x32_10(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return block_[used_++];
  }

  // Uniform over [0, bound), without bias (Lemire, "Fast random integer generation in an interval",
  // 2019); one word, rarely more. Throws std::invalid_argument when bound is 0.
  uint32_t below(uint32_t bound) {
    uint64_t product = uint64_t{next()} * bound;
    if (static_cast<uint32_t>(product) < bound || bound == 0) [[unlikely]] {
      const uint32_t rejected = words_to_reject(bound);
      while (static_cast<uint32_t>(product) < rejected) product = uint64_t{next()} * bound;
    }
    return static_cast<uint32_t>(product >> 32);
  }

  // Uniform over the 2^52 odd multiples of 2^-53, which are symmetric in (0, 1): never 0 or 1. Two
  // words, the first one's bits on top.
  double uniform() {
    const uint64_t high = next();
    const uint64_t bits = (high << 32 | next()) >> 12;
    return (static_cast<double>(bits) + 0.5) * 0x1p-52;
  }

  // N(0, 1): Box-Muller in double precision, four words, one result.
  float normal();

 private:
  static uint32_t words_to_reject(uint32_t bound);  // 2^32 mod bound

  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  uint32_t used_ = 4;
};

}  // namespace hax
