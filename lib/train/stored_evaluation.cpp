#include "lib/train/stored_evaluation.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"

namespace hax {
namespace {

using Json = nlohmann::ordered_json;

std::string file_of(const RunFolder& run, const std::string& data_fingerprint) {
  return run.path() + "/eval-" + data_fingerprint + ".json";
}

}  // namespace

std::optional<StoredEvaluation> read_evaluation(const RunFolder& run, const std::string& data_fingerprint,
                                                const std::string& checkpoint) {
  const std::string path = file_of(run, data_fingerprint);
  if (!std::filesystem::exists(path)) return std::nullopt;
  try {
    const Json json = Json::parse(read_file(path));
    StoredEvaluation e{json.at("data"), json.at("data_fingerprint"), json.at("checkpoint"),
                       json.at("step"), json.at("accuracy"),         json.at("standard_error"),
                       json.at("loss"), json.at("examples")};
    if (e.data_fingerprint != data_fingerprint || e.checkpoint != checkpoint) return std::nullopt;
    return e;
  } catch (const Json::exception& e) {
    throw DataError(path + ": damaged: " + e.what() + "; remove it, and the run is evaluated again");
  }
}

void write_evaluation(const RunFolder& run, const StoredEvaluation& e) {
  const Json json = {{"data", e.data},
                     {"data_fingerprint", e.data_fingerprint},
                     {"checkpoint", e.checkpoint},
                     {"step", e.step},
                     {"accuracy", e.accuracy},
                     {"standard_error", e.standard_error},
                     {"loss", e.loss},
                     {"examples", e.examples}};
  write_file(file_of(run, e.data_fingerprint), json.dump(2) + "\n");
}

}  // namespace hax
