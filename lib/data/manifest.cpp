#include "lib/data/manifest.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/data/token_slots.h"

namespace hax {
namespace {

using nlohmann::json;

constexpr std::string_view kRemedy =
    "; generate the dataset again (hax gen-data) or copy it again from its source";

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

// Typed reading with errors that name the file and the key.
class Reader {
 public:
  Reader(const json& object, std::string path, std::string prefix)
      : object_(object), path_(std::move(path)), prefix_(std::move(prefix)) {
    if (!object_.is_object()) fail("", "is not an object");
  }
  Reader child(const char* key) const { return Reader(find(key), path_, prefix_ + key + "."); }
  std::string text(const char* key) const {
    if (!find(key).is_string()) fail(key, "must be a string, found " + find(key).dump());
    return find(key).get<std::string>();
  }
  int64_t integer(const char* key, int64_t low, int64_t high) const {
    const json& value = find(key);
    if (!value.is_number_integer()) fail(key, "must be an integer, found " + value.dump());
    if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
      fail(key, "is out of range: " + value.dump());
    }
    const auto number = value.get<int64_t>();
    if (number < low || number > high) {
      fail(key,
           "must be in [" + std::to_string(low) + ", " + std::to_string(high) + "], found " + value.dump());
    }
    return number;
  }
  double number(const char* key) const {
    if (!find(key).is_number()) fail(key, "must be a number, found " + find(key).dump());
    return find(key).get<double>();
  }
  std::vector<std::string> texts(const char* key) const {
    const json& value = find(key);
    std::vector<std::string> result;
    if (!value.is_array()) fail(key, "must be a list of strings, found " + value.dump());
    for (const json& item : value) {
      if (!item.is_string()) fail(key, "must be a list of strings, found " + value.dump());
      result.push_back(item.get<std::string>());
    }
    return result;
  }
  bool has(const char* key) const { return object_.contains(key); }
  const json& find(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(key, "is missing");
    return *found;
  }
  [[noreturn]] void fail(const std::string& key, const std::string& fault) const {
    throw DataError(path_ + ": " + (prefix_ + key).append(" ") + fault + std::string(kRemedy));
  }

 private:
  const json& object_;
  std::string path_;
  std::string prefix_;
};

constexpr int64_t kAny = int64_t{1} << 62;

DataSpec read_spec(const Reader& reader) {
  DataSpec spec;
  spec.task = reader.text("task");
  spec.vocab_size = reader.integer("vocab_size", 1, INT32_MAX);
  spec.padded_tokens = reader.integer("padded_tokens", 1, INT32_MAX);
  const std::string kind = reader.text("target_kind");
  if (kind != "label" && kind != "next_token")
    reader.fail("target_kind", "must be label or next_token, found " + kind);
  spec.target_kind = kind == "label" ? TargetKind::label : TargetKind::next_token;
  spec.slice_columns = reader.texts("slice_columns");
  spec.chance = reader.number("chance");
  if (reader.has("slots")) {  // manifests from before them have none
    try {
      spec.slots = reader.find("slots").get<std::vector<TokenSlot>>();
    } catch (const json::exception& error) {
      reader.fail("slots", std::string("must be a list of {name, first, count, is_value}: ") + error.what());
    }
    for (const TokenSlot& slot : spec.slots) {
      if (slot.first < 0 || slot.count < 1 || spec.vocab_size - slot.first < slot.count) {
        reader.fail("slots", "has ids outside the vocabulary of " + std::to_string(spec.vocab_size) + ": " +
                                 reader.find("slots").dump());
      }
    }
  }
  return spec;
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
  const json document = {{"format", kDatasetFormat},
                         {"version", kDatasetVersion},
                         {"origin", manifest.origin},
                         {"program_version", manifest.program_version},
                         {"seed", manifest.seed},
                         {"spec", spec_to_json(manifest.spec)},
                         {"parameters", json::parse(manifest.parameters)},
                         {"splits", splits},
                         {"fingerprint", manifest.fingerprint()}};
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
  json document;
  try {
    document = json::parse(read_file(path));
  } catch (const json::exception& error) {
    throw DataError(path + ": not valid JSON (" + error.what() + ")" + std::string(kRemedy));
  }
  const Reader reader(document, path, "");
  if (reader.text("format") != kDatasetFormat) {
    reader.fail("format", "must be " + std::string(kDatasetFormat) + ", found " + reader.text("format"));
  }
  if (const int64_t version = reader.integer("version", 1, kAny); version != kDatasetVersion) {
    reader.fail("version", "is " + std::to_string(version) + ", this program reads version " +
                               std::to_string(kDatasetVersion));
  }
  Manifest manifest;
  manifest.origin = reader.text("origin");
  manifest.program_version = reader.text("program_version");
  manifest.seed = reader.integer("seed", 0, INT64_MAX);
  manifest.spec = read_spec(reader.child("spec"));
  if (!reader.find("parameters").is_object()) reader.fail("parameters", "must be an object");
  manifest.parameters = reader.find("parameters").dump();
  const Reader splits = reader.child("splits");
  for (Split which : kSplits) {
    const Reader entry = splits.child(std::string(split_name(which)).c_str());
    manifest.split(which) = {entry.integer("examples", 0, kAny), entry.integer("tokens", 0, kAny),
                             entry.integer("bytes", 0, kAny), entry.text("checksum")};
  }
  if (reader.text("fingerprint") != manifest.fingerprint()) {
    reader.fail("fingerprint",
                "does not follow from the manifest's contents: the file was edited or damaged");
  }
  return manifest;
}

}  // namespace hax
