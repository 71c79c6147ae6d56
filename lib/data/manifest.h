// manifest.json of a dataset folder: what the data are, and the proof that they are whole. It is written
// last, so a folder without one holds no dataset.
//
//   folder/train.safetensors  valid.safetensors  test.safetensors  manifest.json
//
// File names are fixed and never read from the manifest.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "lib/data/example.h"

namespace hax {

// Values are part of the format: they key the random streams. Never renumber.
enum class Split : uint8_t { train = 0, valid = 1, test = 2 };
inline constexpr std::array<Split, 3> kSplits = {Split::train, Split::valid, Split::test};
std::string_view split_name(Split split);  // "train"
Split parse_split(std::string_view name);  // throws UsageError
std::string split_path(const std::string& folder, Split split);
std::string manifest_path(const std::string& folder);

inline constexpr std::string_view kDatasetFormat = "hax-dataset";
inline constexpr int kDatasetVersion = 1;

struct SplitEntry {
  int64_t examples = 0;
  int64_t tokens = 0;    // in all examples together
  int64_t bytes = 0;     // size of the file
  std::string checksum;  // of the whole file, lib/base/files.h
};

struct Manifest {
  DataSpec spec;
  std::string parameters;  // the task's parameters, a JSON object in canonical form (sorted keys, no spaces)
  std::string origin;      // "generated" or "imported"
  std::string program_version;
  int64_t seed = 0;
  std::array<SplitEntry, 3> splits;  // by Split

  const SplitEntry& split(Split which) const { return splits[static_cast<size_t>(which)]; }
  SplitEntry& split(Split which) { return splits[static_cast<size_t>(which)]; }
  // Checksum over task, parameters, spec and the splits' checksums: equal fingerprints, equal data.
  std::string fingerprint() const;
};

void write_manifest(const std::string& folder, const Manifest& manifest);  // throws RuntimeError
// Throws DataError naming the file, the key and the remedy, also when the manifest's own fingerprint or
// checksum does not follow from its contents.
Manifest read_manifest(const std::string& folder);
// The same of a text that `path` names in messages, except that its fingerprint and checksum are not looked
// at.
Manifest parse_manifest(const std::string& text, const std::string& path);

}  // namespace hax
