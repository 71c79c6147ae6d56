#include "lib/data/split_columns.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/parallel.h"

namespace hax {
namespace {

template <class T>
void encode_as(std::span<const int32_t> values, std::byte* bytes) {
  for (size_t i = 0; i < values.size(); ++i) {
    const T value = static_cast<T>(values[i]);
    std::memcpy(bytes + i * sizeof(T), &value, sizeof(T));
  }
}

template <class T>
void decode_as(const std::byte* bytes, std::span<int32_t> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    values[i] = static_cast<int32_t>(value);
  }
}

Dtype narrowest(int64_t bound) {
  if (bound <= 256) return Dtype::u8;
  return bound <= 65536 ? Dtype::u16 : Dtype::i32;
}

}  // namespace

Dtype token_dtype(const DataSpec& spec) { return narrowest(spec.vocab_size); }

Dtype position_dtype(const DataSpec& spec) { return spec.padded_tokens <= 65536 ? Dtype::u16 : Dtype::i32; }

void encode(std::span<const int32_t> values, Dtype dtype, std::byte* bytes) {
  switch (dtype) {
    case Dtype::u8:
      return encode_as<uint8_t>(values, bytes);
    case Dtype::u16:
      return encode_as<uint16_t>(values, bytes);
    case Dtype::i32:
      return encode_as<int32_t>(values, bytes);
    default:
      throw std::invalid_argument("encode: dtype " + std::string(dtype_name(dtype)));
  }
}

void decode(const std::byte* bytes, Dtype dtype, std::span<int32_t> values) {
  switch (dtype) {
    case Dtype::u8:
      return decode_as<uint8_t>(bytes, values);
    case Dtype::u16:
      return decode_as<uint16_t>(bytes, values);
    case Dtype::i32:
      return decode_as<int32_t>(bytes, values);
    default:
      throw std::invalid_argument("decode: dtype " + std::string(dtype_name(dtype)));
  }
}

SplitColumns::SplitColumns(const DataSpec& spec, int64_t expected)
    : spec_(spec),
      expected_(expected),
      token_size_(dtype_size(token_dtype(spec))),
      position_size_(dtype_size(position_dtype(spec))) {
  offsets_.reserve(static_cast<size_t>(expected) + 1);
  scored_offsets_.reserve(static_cast<size_t>(expected) + 1);
  slices_.reserve(static_cast<size_t>(expected) * spec.slice_columns.size());
}

void SplitColumns::check(const Example& example) const {
  const auto length = static_cast<int64_t>(example.tokens.size());
  if (length > spec_.padded_tokens || example.scored.size() != example.targets.size() ||
      example.slices.size() != spec_.slice_columns.size()) {
    throw std::invalid_argument("SplitColumns: an example of " + std::to_string(length) + " tokens, " +
                                std::to_string(example.scored.size()) + " scored positions, " +
                                std::to_string(example.targets.size()) + " targets and " +
                                std::to_string(example.slices.size()) + " slices");
  }
}

void SplitColumns::append(std::span<const Example> examples, int threads) {
  const auto first = static_cast<size_t>(this->examples());
  for (const Example& example : examples) {
    check(example);
    offsets_.push_back(offsets_.back() + static_cast<int64_t>(example.tokens.size()));
    scored_offsets_.push_back(scored_offsets_.back() + static_cast<int64_t>(example.scored.size()));
    slices_.insert(slices_.end(), example.slices.begin(), example.slices.end());
  }
  const auto token_bytes = static_cast<size_t>(offsets_.back()) * token_size_;
  const auto scored_count = static_cast<size_t>(scored_offsets_.back());
  const bool labels = spec_.target_kind == TargetKind::label;
  if (first == 0 && !examples.empty()) {
    // Untouched reserve costs address space alone. The margin covers sizes that differ along the split.
    const double scale = 1.02 * static_cast<double>(expected_) / static_cast<double>(examples.size());
    const auto grown = [&](size_t bytes) { return static_cast<size_t>(static_cast<double>(bytes) * scale); };
    tokens_.reserve(grown(token_bytes));
    scored_.reserve(grown(scored_count * position_size_));
    if (labels) targets_.reserve(grown(scored_count * token_size_));
  }
  tokens_.resize(token_bytes);
  scored_.resize(scored_count * position_size_);
  if (labels) targets_.resize(scored_count * token_size_);
  parallel_for(static_cast<int64_t>(examples.size()), 64, threads, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const auto token_at = static_cast<size_t>(offsets_[first + i]) * token_size_;
      const auto scored_at = static_cast<size_t>(scored_offsets_[first + i]);
      encode(examples[i].tokens, token_dtype(spec_), tokens_.data() + token_at);
      encode(examples[i].scored, position_dtype(spec_), scored_.data() + scored_at * position_size_);
      if (labels) encode(examples[i].targets, token_dtype(spec_), targets_.data() + scored_at * token_size_);
    }
  });
}

SplitEntry SplitColumns::write(const std::string& folder, Split split) const {
  const int64_t n = examples();
  const auto columns = static_cast<int64_t>(spec_.slice_columns.size());
  std::vector<TensorToWrite> tensors = {
      {"tokens", token_dtype(spec_), {offsets_.back()}, tokens_},
      {"offsets", Dtype::i64, {n + 1}, as_bytes(offsets_)},
      {"scored", position_dtype(spec_), {scored_offsets_.back()}, scored_},
      {"scored_offsets", Dtype::i64, {n + 1}, as_bytes(scored_offsets_)},
      {"slices", Dtype::i32, {n, columns}, as_bytes(slices_)},
  };
  if (spec_.target_kind == TargetKind::label) {
    tensors.push_back({"targets", token_dtype(spec_), {scored_offsets_.back()}, targets_});
  }
  const std::string path = split_path(folder, split);
  write_safetensors(path, tensors,
                    {{"format", std::string(kDatasetFormat)},
                     {"version", std::to_string(kDatasetVersion)},
                     {"task", spec_.task},
                     {"split", std::string(split_name(split))}});
  SplitEntry entry;
  entry.examples = n;
  entry.tokens = offsets_.back();
  entry.bytes = static_cast<int64_t>(std::filesystem::file_size(path));
  entry.checksum = file_checksum(path);
  return entry;
}

std::string file_checksum(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw DataError(path + ": cannot be opened for reading");
  std::vector<char> piece(size_t{1} << 16);
  Checksum sum;
  while (file) {
    file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    sum.update(std::as_bytes(std::span(piece.data(), static_cast<size_t>(file.gcount()))));
  }
  if (file.bad()) throw DataError(path + ": reading failed");
  return sum.hex();
}

}  // namespace hax
