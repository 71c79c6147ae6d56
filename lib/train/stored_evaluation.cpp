#include "lib/train/stored_evaluation.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/json.h"
#include "lib/base/log.h"

namespace hax {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMaxBytes = 1 << 20;

std::string file_of(const RunFolder& run, const std::string& data_fingerprint) {
  return run.path() + "/eval-" + data_fingerprint + ".json";
}

constexpr const char* kRemedy = "the run is evaluated again";

// Nothing where the file carries no checksum; throws DataError for a damaged one.
std::optional<StoredEvaluation> read_checked(const std::string& path) {
  const nlohmann::json document = read_json_file(path, kMaxBytes, kRemedy);
  const JsonReader json(document, damaged_place(path), kRemedy);
  if (!json.has("checksum")) return std::nullopt;
  if (json.text("checksum") != document_checksum(document))
    json.fail("checksum", "is not that of the other keys");
  const double most = std::numeric_limits<double>::max();
  StoredEvaluation e;
  e.data = json.text("data");
  e.data_fingerprint = json.text("data_fingerprint");
  e.checkpoint = json.text("checkpoint");
  e.step = json.integer("step", 0, INT64_MAX);
  e.accuracy = json.number("accuracy", 0.0, 1.0);
  e.standard_error = json.number("standard_error", 0.0, most);
  e.loss = json.number("loss", 0.0, most);
  e.examples = json.integer("examples", 0, INT64_MAX);
  if (json.has("seen")) e.seen = json.integer("seen", 0, e.examples);
  return e;
}

}  // namespace

std::optional<StoredEvaluation> read_evaluation(const RunFolder& run, const std::string& data_fingerprint,
                                                const std::string& checkpoint) {
  const std::string path = file_of(run, data_fingerprint);
  if (!std::filesystem::exists(path)) return std::nullopt;
  std::optional<StoredEvaluation> found;
  try {
    found = read_checked(path);
    if (!found) log::warn(path + ": carries no checksum, as earlier versions wrote it; " + kRemedy);
  } catch (const DataError& e) {
    log::warn(e.what());
  }
  if (!found || found->data_fingerprint != data_fingerprint || found->checkpoint != checkpoint)
    return std::nullopt;
  return found;
}

void write_evaluation(const RunFolder& run, const StoredEvaluation& e) {
  Json json = {{"data", e.data},
               {"data_fingerprint", e.data_fingerprint},
               {"checkpoint", e.checkpoint},
               {"step", e.step},
               {"accuracy", e.accuracy},
               {"standard_error", e.standard_error},
               {"loss", e.loss},
               {"examples", e.examples}};
  if (e.seen) json["seen"] = *e.seen;
  json["checksum"] = document_checksum(json);
  write_file(file_of(run, e.data_fingerprint), json.dump(2) + "\n");
}

}  // namespace hax
