// Which examples make up which batch. Nothing is stored and nothing advances: batch `step` is a pure
// function of (source, seed, batch size, step), so a resumed run sees what an unbroken one would have.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/data/example.h"

namespace hax {

// A bijection of [0, size), different for every (seed, epoch): a Feistel network over the next power of
// two, its rounds keyed by Philox, walked until it lands inside (Black & Rogaway, "Ciphers with arbitrary
// finite domains", 2002, cycle walking).
class KeyedPermutation {
 public:
  KeyedPermutation(uint64_t seed, uint32_t epoch, int64_t size);  // 1 <= size < 2^62
  int64_t operator()(int64_t index) const;                        // index in [0, size)

 private:
  uint64_t encrypt(uint64_t value) const;

  uint64_t seed_;
  uint32_t epoch_;
  int64_t size_;
  int left_bits_;
  int right_bits_;
};

// The training batches of a run. A finite source is read epoch by epoch, each in its own order; a batch
// that crosses the end of an epoch takes its rest from the next. An endless source is read in order.
class BatchSequence {
 public:
  // `source` is borrowed. Throws std::invalid_argument when it is empty or batch_size < 1.
  BatchSequence(const ExampleSource& source, uint64_t seed, int64_t batch_size);

  std::vector<int64_t> indices(int64_t step) const;  // (batch_size)
  Batch batch(int64_t step) const;

 private:
  const ExampleSource& source_;
  uint64_t seed_;
  int64_t batch_size_;
};

// Examples [begin, end) of a source in order, as evaluation reads them.
Batch consecutive_batch(const ExampleSource& source, int64_t begin, int64_t end);

}  // namespace hax
