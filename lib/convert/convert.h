// Weights from one form to another: `hax convert`.
//
//   hax          a checkpoint (lib/model/checkpoint.h)
//   official     a safetensors file with the official code's names, nothing else
//   huggingface  a folder with config.json and model.safetensors
// All pass through a LanguageModel, so a tensor that is missing, unknown or of another shape is found on
// the way. docs/convert.md has the map.
#pragma once

#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/data/example.h"

namespace hax {

enum class WeightForm { hax, official, huggingface };

struct ConvertOptions {
  std::string in, out;
  WeightForm to = WeightForm::hax;
  // What the input does not say. `configured`: somebody gave some of it.
  Config config;
  bool configured = false;
  // To hax: the data of config.task, which the checkpoint says the model reads.
  DataSpec data;
  std::string prefix;  // to official: before every name; lm_head.weight is written too where it is not empty
  bool drop_sparse = false;  // to huggingface: leave the sparse branch behind, which changes what is computed
};

// Returns what there is to say: what was read, what was written, what was left behind. Throws DataError for
// an input that is of no form or cannot be taken over, UsageError for an output that exists and for options
// that have no meaning in this conversion; nothing is written then.
std::vector<std::string> convert(const ConvertOptions& options);

}  // namespace hax
