#include "lib/convert/huggingface.h"

#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/convert/shapes.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "/config.json";
constexpr const char* kWeights = "/model.safetensors";
constexpr const char* kPrefix = "backbone.";

}  // namespace

bool is_huggingface(const std::string& path) { return fs::is_regular_file(path + kConfig); }

HuggingfaceModel open_huggingface(const std::string& folder, const Config& given) {
  const std::string config_path = folder + kConfig, weights_path = folder + kWeights;
  if (!fs::exists(weights_path)) {
    const bool parts = fs::exists(weights_path + ".index.json");
    throw DataError(weights_path + (parts ? ": is missing: the model is split into parts" : ": is missing") +
                    "; save it into one file with save_pretrained(..., max_shard_size=\"100GB\", "
                    "safe_serialization=True)");
  }
  HuggingfaceModel out{read_huggingface_config(read_file(config_path), config_path, given),
                       WeightFile(Safetensors::open(weights_path))};
  if (!out.config.tied && !out.weights.has_head()) {
    throw DataError(config_path + ": tie_word_embeddings is false, and " + weights_path +
                    " has no lm_head.weight to show that it is the embedding");
  }
  // What follows from the shapes must be what config.json says, before any of it is laid out in memory.
  out.config.config = config_from_shapes(out.weights, out.config.config, config_path);
  const auto& embedding = out.weights.shape("embeddings.weight");
  if (embedding.front() != out.config.vocab_size) {
    throw DataError(config_path + ": vocab_size is " + std::to_string(out.config.vocab_size) + ", but " +
                    weights_path + " has embeddings of " + std::to_string(embedding.front()) + " tokens");
  }
  return out;
}

void write_huggingface(const std::string& folder, const LanguageModel& model) {
  const std::string config = huggingface_config(model.config(), model.vocab_size());
  if (fs::exists(folder) && !(fs::is_directory(folder) && fs::is_empty(folder))) {
    throw UsageError(folder + ": exists already; name a new folder, or an empty one");
  }
  std::vector<const Parameter*> parameters;
  for (const auto& p : model.parameters().all()) {
    if (!is_sparse_parameter(p->name)) parameters.push_back(p.get());
  }
  make_directories(folder);
  write_weights(folder + kWeights, parameters, kPrefix, /*head=*/false);
  write_file(folder + kConfig, config);
}

bool is_sparse_parameter(const std::string& official_name) {
  const size_t mixer = official_name.find(".mixer.");
  if (mixer == std::string::npos) return false;
  const std::string name = official_name.substr(mixer + 7);
  return name == "E" || name.starts_with("xx_proj.") || name.starts_with("dx_proj_");
}

}  // namespace hax
