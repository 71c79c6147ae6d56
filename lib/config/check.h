// Combinations of settings that cannot work, found before any work begins. The checks of single fields
// (range, type) come first; a check of several fields names them all and the inequality with its numbers.
#pragma once

#include <string>
#include <vector>

#include "lib/config/config.h"

namespace hax {

struct Violation {
  std::vector<std::string> keys;  // all that could be changed to cure it; the message's subject first
  std::string message;            // "model.n_heads = 3 must divide ..."
};

std::vector<Violation> violations(const Config& config);

// The messages alone; empty where the configuration can work.
std::vector<std::string> check(const Config& config);

// Throws UsageError with every message about the named task's section alone, ranges included.
void require_valid(const TaskConfig& task);

// What training asks for beyond check(): a dataset folder, for validation at least.
std::vector<std::string> check_for_training(const Config& config);

}  // namespace hax
