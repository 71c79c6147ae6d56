// A model's config from the names and shapes of its weights.
//
// They tell the mixer of each layer, model.{layers, d_model, expand, d_conv}, Mamba's d_state and dt_rank,
// Mamba2's n_heads, the width of its B and C together (d_state follows from the given n_groups), a ratio for
// the MLP's width, and the sparse branch's d_qk. They do not tell what has no tensor of its own: n_groups,
// chunk_size, patterns, budgets, hashing, mode, heads and window of attention. Those stay as given.
#pragma once

#include "lib/config/config.h"
#include "lib/convert/weight_file.h"

namespace hax {

// `given` with its model section made to fit the weights. Throws DataError when the names or shapes are those
// of no model, and UsageError when `given` says something else than they (DataError where the file `given_by`
// gave it), or too little (no patterns for a sparse branch).
Config config_from_shapes(const WeightFile& weights, const Config& given, const std::string& given_by = "");

}  // namespace hax
