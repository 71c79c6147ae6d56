#include "lib/train/stored_evaluation.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/json.h"

namespace hax {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMaxBytes = 1 << 20;

std::string file_of(const RunFolder& run, const std::string& data_fingerprint) {
  return run.path() + "/eval-" + data_fingerprint + ".json";
}

}  // namespace

std::optional<StoredEvaluation> read_evaluation(const RunFolder& run, const std::string& data_fingerprint,
                                                const std::string& checkpoint) {
  const std::string path = file_of(run, data_fingerprint);
  if (!std::filesystem::exists(path)) return std::nullopt;
  const char* remedy = "remove it, and the run is evaluated again";
  const nlohmann::json document = read_json_file(path, kMaxBytes, remedy);
  const JsonReader json(document, damaged_place(path), remedy);
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
  if (e.data_fingerprint != data_fingerprint || e.checkpoint != checkpoint) return std::nullopt;
  return e;
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
  write_file(file_of(run, e.data_fingerprint), json.dump(2) + "\n");
}

}  // namespace hax
