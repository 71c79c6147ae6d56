// Which examples exist already, by a 128-bit hash of their tokens (XXH3). Two different examples of n share
// a hash with probability below n^2 / 2^128: 1e-26 for the paper's set. A collision would cost a redraw.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hax {

struct ExampleHash {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const ExampleHash&) const = default;
};

ExampleHash hash_tokens(std::span<const int32_t> tokens);

// Open addressing with linear probing; the load stays below one half.
class ExampleSet {
 public:
  ExampleSet() : ExampleSet(0) {}
  explicit ExampleSet(int64_t expected);

  bool insert(const ExampleHash& hash);  // false when it is there already
  bool contains(const ExampleHash& hash) const;
  int64_t size() const { return size_; }

 private:
  size_t place(const ExampleHash& hash) const;  // where the hash is or belongs
  void grow();

  std::vector<ExampleHash> slots_;  // {0, 0}: empty
  int64_t size_ = 0;
};

}  // namespace hax
