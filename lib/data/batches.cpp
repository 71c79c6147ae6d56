#include "lib/data/batches.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

#include "lib/base/random.h"

namespace hax {
namespace {

constexpr uint32_t kRounds = 8;
// Halves of two or three bits leave the network too few functions to choose from: the orders of five
// examples are then far from equally frequent, whatever the number of rounds.
constexpr int kSmallestBits = 8;

}  // namespace

KeyedPermutation::KeyedPermutation(uint64_t seed, uint32_t epoch, int64_t size)
    : seed_(seed), epoch_(epoch), size_(size) {
  if (size < 1 || size >= (int64_t{1} << 62)) {
    throw std::invalid_argument("KeyedPermutation: size " + std::to_string(size) + " is not in [1, 2^62)");
  }
  const int bits = std::max<int>(kSmallestBits, std::bit_width(static_cast<uint64_t>(size - 1)));
  left_bits_ = bits / 2;
  right_bits_ = bits - left_bits_;
}

uint64_t KeyedPermutation::encrypt(uint64_t value) const {
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)};
  const uint64_t right_mask = (uint64_t{1} << right_bits_) - 1;
  const uint64_t left_mask = (uint64_t{1} << left_bits_) - 1;
  uint64_t left = value >> right_bits_;
  uint64_t right = value & right_mask;
  // The halves keep their own widths: even rounds change the left one, odd rounds the right one.
  for (uint32_t round = 0; round < kRounds; ++round) {
    const bool even = round % 2 == 0;
    const auto half = static_cast<uint32_t>(even ? right : left);
    const uint32_t word =
        philox4x32_10({half, round, epoch_, static_cast<uint32_t>(Purpose::shuffle)}, key)[0];
    if (even) {
      left ^= word & left_mask;
    } else {
      right ^= word & right_mask;
    }
  }
  return (left << right_bits_) | right;
}

int64_t KeyedPermutation::operator()(int64_t index) const {
  if (index < 0 || index >= size_) {
    throw std::invalid_argument("KeyedPermutation: index " + std::to_string(index) + " outside [0, " +
                                std::to_string(size_) + ")");
  }
  auto value = static_cast<uint64_t>(index);
  do {
    value = encrypt(value);
  } while (value >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(value);
}

BatchSequence::BatchSequence(const ExampleSource& source, uint64_t seed, int64_t batch_size)
    : source_(source), seed_(seed), batch_size_(batch_size) {
  if (batch_size < 1) throw std::invalid_argument("BatchSequence: batch size " + std::to_string(batch_size));
  if (source.size() == 0) throw std::invalid_argument("BatchSequence: the source has no examples");
}

std::vector<int64_t> BatchSequence::indices(int64_t step) const {
  if (step < 0) throw std::invalid_argument("BatchSequence: step " + std::to_string(step));
  std::vector<int64_t> result(static_cast<size_t>(batch_size_));
  const int64_t size = source_.size();
  for (int64_t i = 0; i < batch_size_; ++i) {
    const int64_t place = step * batch_size_ + i;
    if (size < 0) {
      result[static_cast<size_t>(i)] = place;
    } else {
      const KeyedPermutation order(seed_, static_cast<uint32_t>(place / size), size);
      result[static_cast<size_t>(i)] = order(place % size);
    }
  }
  return result;
}

Batch BatchSequence::batch(int64_t step) const {
  Batch batch = empty_batch(source_.spec());
  for (int64_t index : indices(step)) source_.append_example(index, batch);
  return batch;
}

Batch consecutive_batch(const ExampleSource& source, int64_t begin, int64_t end) {
  if (begin < 0 || end < begin || (source.size() >= 0 && end > source.size())) {
    throw std::invalid_argument("consecutive_batch: examples [" + std::to_string(begin) + ", " +
                                std::to_string(end) + ") of " + std::to_string(source.size()));
  }
  Batch batch = empty_batch(source.spec());
  for (int64_t index = begin; index < end; ++index) source.append_example(index, batch);
  return batch;
}

}  // namespace hax
