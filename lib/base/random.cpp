// The parts of RandomStream that are not worth inlining.
#include "lib/base/random.h"

#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>

namespace hax {

RandomStream::RandomStream(const StreamKey& key)
    : key_{static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)},
      counter_{0, key.index, key.step, static_cast<uint32_t>(key.purpose) | key.layer << 8} {
  if (key.layer >= 1u << 24) {
    throw std::invalid_argument("RandomStream: layer " + std::to_string(key.layer) + " is not below 2^24");
  }
}

uint32_t RandomStream::words_to_reject(uint32_t bound) {
  if (bound == 0) throw std::invalid_argument("RandomStream::below: bound 0 leaves nothing to draw");
  return (0u - bound) % bound;
}

float RandomStream::normal() {
  const double radius = std::sqrt(-2.0 * std::log(uniform()));
  const double angle = 2.0 * std::numbers::pi * uniform();
  return static_cast<float>(radius * std::cos(angle));
}

}  // namespace hax
