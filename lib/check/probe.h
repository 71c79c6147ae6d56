// What the checks run on: a model in several precisions, and short pieces of real examples.
#pragma once

#include <string>
#include <vector>

#include "lib/data/example.h"
#include "lib/model/language_model.h"

namespace hax {

// The same weights in another type.
LanguageModel copy_of(const LanguageModel& model, at::ScalarType dtype);

// The first `sequences` of the batch, each cut to at most `max_tokens`; every position is scored, against its
// sequence's next token (the last one against the first).
ModelInput probe_input(const Batch& batch, int64_t sequences, int64_t max_tokens, at::Device device);

// Evaluation's draws without a checkpoint: one fixed set of hash matrices for every forward pass, in both
// modes. `training` draws positions for the ranking loss too.
PhiloxDraws probe_draws(const ModelConfig& config, bool training);

// max |a - b| / max |b|; infinite where either is not finite.
double relative_difference(const at::Tensor& a, const at::Tensor& b);

// Did two forward passes make the same discrete choices: bins, and keys of the running top-k?
bool same_choices(const std::vector<BranchOutput>& a, const std::vector<BranchOutput>& b);

// Is there a query that no pattern allows a key, and that therefore attends to all positions (`paper`)?
bool attends_to_all(const BranchOutput& branch, const ops::PackedLayout& layout);

std::string in_words(double value, int digits = 2);  // "3.1e-07"

}  // namespace hax
