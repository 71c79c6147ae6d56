// A model as Hugging Face's transformers keep it: a folder with config.json and model.safetensors, whose
// names are the official ones behind "backbone.".
#pragma once

#include <string>

#include "lib/convert/huggingface_config.h"
#include "lib/convert/weight_file.h"
#include "lib/model/language_model.h"

namespace hax {

struct HuggingfaceModel {
  HuggingfaceConfig config;
  WeightFile weights;
};

bool is_huggingface(const std::string& path);  // a folder with a config.json

// Throws DataError naming the file, and the key or tensor, that hax cannot take over, or when the two files
// disagree; UsageError when `given` says something else than config.json.
HuggingfaceModel open_huggingface(const std::string& folder, const Config& given);

// Writes both files into a folder that must not exist or be empty, config.json last. The sparse branch is
// left out. Throws UsageError for models that are neither Mamba nor Mamba2 throughout, and for another
// folder.
void write_huggingface(const std::string& folder, const LanguageModel& model);

// A tensor of the sparse branch: E, xx_proj.*, dx_proj_*.*; no class of Hugging Face's has a place for it.
bool is_sparse_parameter(const std::string& official_name);

}  // namespace hax
