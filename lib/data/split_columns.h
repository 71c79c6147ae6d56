// The columns of one split, as they lie in its safetensors file. Writer and reader share this header.
//
//   tokens         (T)     u8 | u16 | i32  examples end to end, PAD left out
//   offsets        (n+1)   i64             example i is tokens[offsets[i] .. offsets[i+1])
//   scored         (S)     u16 | i32       positions inside their example, ascending
//   scored_offsets (n+1)   i64             example i owns scored[scored_offsets[i] .. scored_offsets[i+1])
//   slices         (n, c)  i32             a value for each slice column
//   targets        (S)     as tokens       only under TargetKind::label
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/base/safetensors.h"
#include "lib/data/manifest.h"

namespace hax {

Dtype token_dtype(const DataSpec& spec);     // the narrowest that holds [0, vocab_size)
Dtype position_dtype(const DataSpec& spec);  // the narrowest that holds [0, padded_tokens)

// Integers of one of the dtypes above to and from int32. `bytes` may be unaligned; its size is that of the
// int32 side in elements.
void encode(std::span<const int32_t> values, Dtype dtype, std::byte* bytes);
void decode(const std::byte* bytes, Dtype dtype, std::span<int32_t> values);

// A split under construction, in memory.
class SplitColumns {
 public:
  // `expected` examples: memory is reserved once the first ones show their length.
  SplitColumns(const DataSpec& spec, int64_t expected);

  // The result does not depend on threads. Throws std::invalid_argument when an example does not fit the
  // spec.
  void append(std::span<const Example> examples, int threads);

  int64_t examples() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  // Writes the file and describes it; throws RuntimeError.
  SplitEntry write(const std::string& folder, Split split) const;

 private:
  void check(const Example& example) const;

  DataSpec spec_;
  int64_t expected_;
  size_t token_size_;
  size_t position_size_;
  std::vector<std::byte> tokens_;
  std::vector<std::byte> scored_;
  std::vector<std::byte> targets_;
  std::vector<int64_t> offsets_ = {0};
  std::vector<int64_t> scored_offsets_ = {0};
  std::vector<int32_t> slices_;
};

// Checksum of a file's bytes, read in pieces. Throws DataError.
std::string file_checksum(const std::string& path);

}  // namespace hax
