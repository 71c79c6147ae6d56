#include "lib/data/manifest.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/json.h"
#include "lib/data/token_slots.h"

namespace hax {
namespace {

using nlohmann::json;

constexpr const char* kRemedy = "generate the dataset again (hax gen-data) or copy it again from its source";
constexpr uint64_t kMaxManifestBytes = 1 << 20;

json spec_to_json(const DataSpec& spec) {
  json object = {{"task", spec.task},
                 {"vocab_size", spec.vocab_size},
                 {"padded_tokens", spec.padded_tokens},
                 {"target_kind", spec.target_kind == TargetKind::label ? "label" : "next_token"},
                 {"slice_columns", spec.slice_columns},
                 {"chance", spec.chance}};
  if (!spec.slots.empty()) object["slots"] = spec.slots;
  return object;
}

constexpr int64_t kAny = int64_t{1} << 62;

constexpr std::array<std::string_view, 10> kKeys = {"format",      "version", "origin",     "program_version",
                                                    "seed",        "spec",    "parameters", "splits",
                                                    "fingerprint", "checksum"};

DataSpec read_spec(const JsonReader& reader) {
  DataSpec spec;
  spec.task = reader.text("task");
  spec.vocab_size = reader.integer("vocab_size", 1, INT32_MAX);
  spec.padded_tokens = reader.integer("padded_tokens", 1, INT32_MAX);
  const std::string kind = reader.text("target_kind");
  if (kind != "label" && kind != "next_token")
    reader.fail("target_kind", "must be label or next_token, found " + shown_json(kind));
  spec.target_kind = kind == "label" ? TargetKind::label : TargetKind::next_token;
  spec.slice_columns = reader.texts("slice_columns");
  spec.chance = reader.number("chance", 0.0, 1.0);
  if (reader.has("slots")) spec.slots = read_slots(reader, "slots", spec.vocab_size);  // older ones have none
  return spec;
}

Manifest manifest_of(const JsonReader& reader, const json& document) {
  if (reader.text("format") != kDatasetFormat) {
    reader.fail("format",
                "must be " + std::string(kDatasetFormat) + ", found " + shown_json(reader.find("format")));
  }
  if (const int64_t version = reader.integer("version", 1, kAny); version != kDatasetVersion) {
    reader.fail("version", "is " + std::to_string(version) + ", this program reads version " +
                               std::to_string(kDatasetVersion));
  }
  for (const auto& [key, value] : document.items()) {
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) reader.fail(shown_json(key), "is unknown");
  }
  Manifest manifest;
  manifest.origin = reader.text("origin");
  manifest.program_version = reader.text("program_version");
  manifest.seed = reader.integer("seed", 0, INT64_MAX);
  manifest.spec = read_spec(reader.child("spec"));
  if (!reader.find("parameters").is_object()) {
    reader.fail("parameters", "must be an object, found " + shown_json(reader.find("parameters")));
  }
  manifest.parameters = reader.find("parameters").dump();
  const JsonReader splits = reader.child("splits");
  for (Split which : kSplits) {
    const JsonReader entry = splits.child(std::string(split_name(which)));
    manifest.split(which) = {entry.integer("examples", 0, kAny), entry.integer("tokens", 0, kAny),
                             entry.integer("bytes", 0, kAny), entry.text("checksum")};
  }
  return manifest;
}

// Whether the document's own checksums follow from its contents.
void check_proofs(const JsonReader& reader, const json& document, const Manifest& manifest) {
  const char* fault = "does not follow from the manifest's contents: the file was edited or damaged";
  if (reader.text("fingerprint") != manifest.fingerprint()) reader.fail("fingerprint", fault);
  // Older manifests have none.
  if (reader.has("checksum") && reader.text("checksum") != document_checksum(document))
    reader.fail("checksum", fault);
}

}  // namespace

std::string_view split_name(Split split) {
  switch (split) {
    case Split::train:
      return "train";
    case Split::valid:
      return "valid";
    case Split::test:
      return "test";
  }
  throw std::invalid_argument("split_name: " + std::to_string(static_cast<int>(split)));
}

Split parse_split(std::string_view name) {
  for (Split split : kSplits) {
    if (name == split_name(split)) return split;
  }
  throw UsageError("unknown split '" + std::string(name) + "': one of train, valid, test");
}

std::string split_path(const std::string& folder, Split split) {
  return (std::filesystem::path(folder) / (std::string(split_name(split)) + ".safetensors")).string();
}

std::string manifest_path(const std::string& folder) {
  return (std::filesystem::path(folder) / "manifest.json").string();
}

std::string Manifest::fingerprint() const {
  std::string text = std::string(kDatasetFormat) + " " + std::to_string(kDatasetVersion) + "\n" + parameters +
                     "\n" + spec_to_json(spec).dump() + "\n";
  for (Split which : kSplits) {
    text += std::string(split_name(which)) + " " + std::to_string(split(which).examples) + " " +
            split(which).checksum + "\n";
  }
  return checksum(as_bytes(text));
}

void write_manifest(const std::string& folder, const Manifest& manifest) {
  json splits = json::object();
  for (Split which : kSplits) {
    const SplitEntry& entry = manifest.split(which);
    splits[std::string(split_name(which))] = {{"examples", entry.examples},
                                              {"tokens", entry.tokens},
                                              {"bytes", entry.bytes},
                                              {"checksum", entry.checksum}};
  }
  json document = {{"format", kDatasetFormat},
                   {"version", kDatasetVersion},
                   {"origin", manifest.origin},
                   {"program_version", manifest.program_version},
                   {"seed", manifest.seed},
                   {"spec", spec_to_json(manifest.spec)},
                   {"parameters", json::parse(manifest.parameters)},
                   {"splits", splits},
                   {"fingerprint", manifest.fingerprint()}};
  document["checksum"] = document_checksum(document);
  write_file(manifest_path(folder), document.dump(2) + "\n");
}

Manifest read_manifest(const std::string& folder) {
  const std::string path = manifest_path(folder);
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    if (std::filesystem::exists(folder, ignored))
      throw DataError(folder + ": is a file; name the dataset's folder");
    throw DataError(folder + ": no such folder; make a dataset with hax gen-data --out " + folder);
  }
  if (!std::filesystem::exists(path, ignored)) {
    throw DataError(path + " is missing: " + folder +
                    " holds no dataset, or its generation was interrupted; run hax gen-data --out " + folder +
                    " again");
  }
  std::string text;
  try {
    text = read_file(path, kMaxManifestBytes);
  } catch (const DataError& error) {
    throw DataError(std::string(error.what()) + "; " + kRemedy);
  }
  const json document = parse_json(text, path, kRemedy);
  const JsonReader reader(document, path, kRemedy);
  Manifest manifest = manifest_of(reader, document);
  check_proofs(reader, document, manifest);
  return manifest;
}

Manifest parse_manifest(const std::string& text, const std::string& path) {
  const json document = parse_json(text, path, kRemedy);
  return manifest_of(JsonReader(document, path, kRemedy), document);
}

}  // namespace hax
