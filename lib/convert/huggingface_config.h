// config.json of Hugging Face's Mamba and Mamba2 (MambaForCausalLM, Mamba2ForCausalLM).
//
//   vocab_size; hidden_size: d_model; state_size: d_state; num_hidden_layers: layers; expand; conv_kernel:
//   d_conv; of mamba time_step_rank: dt_rank and intermediate_size: d_inner; of mamba2 num_heads: n_heads,
//   head_dim, n_groups, chunk_size.
// n_groups must be 1: transformers 4.57.3 normalises Mamba2's heads all together before the output, as hax
// and the official code do, 5.24.0 each group by itself, and the fallback of 4.49.0 hands B and C to other
// heads. A key that is missing has the default of its class there. Keys of initialisation, caches and tokens
// are passed over; those that ask for what hax has not are refused.
#pragma once

#include <cstdint>
#include <string>

#include "lib/config/config.h"

namespace hax {

struct HuggingfaceConfig {
  Config config;  // `given` with its model section as config.json has it
  int64_t vocab_size = 0;
  bool tied = true;  // the output matrix is the embedding, or must be equal to it
};

// `text` is the file `path`. Throws DataError naming the key and what was found, and UsageError when `given`
// says something else.
HuggingfaceConfig read_huggingface_config(const std::string& text, const std::string& path,
                                          const Config& given);

// Throws UsageError when the model is neither Mamba nor Mamba2 throughout. A sparse branch is not spoken of.
std::string huggingface_config(const ModelConfig& model, int64_t vocab_size);

}  // namespace hax
