// Keys and values that decoding keeps, by position, and nothing else.
//
// Several holders (the patterns of a branch) may want the same key: it is stored once, and goes when the last
// of them lets go. Rows in use are always the first size() of the storage, in no particular order.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "lib/ops/torch.h"

namespace hax {

class KeyCache {
 public:
  // Rows of d_key and d_value numbers of this dtype on this device.
  KeyCache(int64_t d_key, int64_t d_value, const at::TensorOptions& options);

  // key (1, d_key), value (1, d_value). Throws std::invalid_argument for a position that is held.
  void insert(int64_t position, const at::Tensor& key, const at::Tensor& value, int64_t holders);
  // One holder lets go. Throws std::invalid_argument for a position that is not held.
  void release(int64_t position);
  // Rows in the order of `positions`; throws std::invalid_argument for one that is not held.
  struct Rows {
    at::Tensor keys, values;  // (n, d_key), (n, d_value)
  };
  Rows select(const std::vector<int64_t>& positions) const;

  int64_t size() const { return static_cast<int64_t>(position_of_.size()); }
  int64_t bytes() const;  // of the rows in use and their positions

 private:
  struct Entry {
    int64_t row;
    int64_t holders;
  };
  const Entry& entry(int64_t position) const;
  void grow();

  at::Tensor keys_, values_;          // (capacity, ...)
  std::vector<int64_t> position_of_;  // of each row in use
  std::unordered_map<int64_t, Entry> entries_;
};

}  // namespace hax
