#include "data_gen/example_set.h"

#include <bit>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace hax {

ExampleHash hash_tokens(std::span<const int32_t> tokens) {
  const XXH128_hash_t hash = XXH3_128bits(tokens.data(), tokens.size_bytes());
  // {0, 0} marks an empty slot.
  return {hash.low64, hash.high64 | 1};
}

ExampleSet::ExampleSet(int64_t expected) : slots_(std::bit_ceil(static_cast<size_t>(2 * expected + 16))) {}

size_t ExampleSet::place(const ExampleHash& hash) const {
  const size_t mask = slots_.size() - 1;
  size_t at = hash.low & mask;
  while (slots_[at].high != 0 && slots_[at] != hash) at = (at + 1) & mask;
  return at;
}

bool ExampleSet::contains(const ExampleHash& hash) const { return slots_[place(hash)].high != 0; }

bool ExampleSet::insert(const ExampleHash& hash) {
  ExampleHash& slot = slots_[place(hash)];
  if (slot.high != 0) return false;
  slot = hash;
  if (++size_ * 2 > static_cast<int64_t>(slots_.size())) grow();
  return true;
}

void ExampleSet::grow() {
  std::vector<ExampleHash> old(slots_.size() * 2);
  old.swap(slots_);
  for (const ExampleHash& hash : old) {
    if (hash.high != 0) slots_[place(hash)] = hash;
  }
}

}  // namespace hax
