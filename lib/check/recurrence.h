// Is the packed forward pass the recurrence that it stands for? Its scan against the recurrence written token
// by token, and whole models against decoding.
#pragma once

#include "lib/check/check_result.h"
#include "lib/model/language_model.h"

namespace hax {

// In fp64, logits of every position of one example.
CheckResult check_decoding(const LanguageModel& model, const Batch& batch);
// The scans of the model's mixers, at their sizes, as they run in training (fp32) against their reference.
CheckResult check_scans(const ModelConfig& config, at::Device device);

}  // namespace hax
