// A dataset folder, opened and checked: every byte is accounted for before the first example is read.
//
// Examples are read from a mapping of the file; opening costs one pass over it.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "lib/base/safetensors.h"
#include "lib/data/example.h"
#include "lib/data/manifest.h"

namespace hax {

// One split of a dataset. Copies share the mapping.
class FileSource : public ExampleSource {
 public:
  // Throws DataError naming the file, the fault and the remedy: wrong size or checksum, tensors missing,
  // of another dtype or shape, offsets that do not ascend, tokens outside the vocabulary, positions
  // outside their example.
  FileSource(const std::string& folder, Split split, const Manifest& manifest, int threads);

  const DataSpec& spec() const override { return spec_; }
  int64_t size() const override { return examples_; }
  void append_example(int64_t index, Batch& batch) const override;
  std::string fingerprint() const override { return fingerprint_; }

  void example(int64_t index, Example& result) const;  // index in [0, size())

 private:
  int64_t offset(const std::byte* column, int64_t index) const;
  void check_tensors() const;
  void check_contents(int threads) const;
  [[noreturn]] void fail(const std::string& fault) const;

  std::string path_;
  DataSpec spec_;
  int64_t examples_;
  std::string fingerprint_;
  Safetensors file_;
  const std::byte* tokens_ = nullptr;
  const std::byte* offsets_ = nullptr;
  const std::byte* scored_ = nullptr;
  const std::byte* scored_offsets_ = nullptr;
  const std::byte* slices_ = nullptr;
  const std::byte* targets_ = nullptr;  // only under TargetKind::label
};

class Dataset {
 public:
  // Checks the manifest and all three files; throws DataError.
  static Dataset open(const std::string& folder, int threads);

  const std::string& folder() const { return folder_; }
  const Manifest& manifest() const { return manifest_; }
  const DataSpec& spec() const { return manifest_.spec; }
  const FileSource& split(Split which) const { return *splits_[static_cast<size_t>(which)]; }

 private:
  std::string folder_;
  Manifest manifest_;
  std::array<std::shared_ptr<const FileSource>, 3> splits_;
};

}  // namespace hax
