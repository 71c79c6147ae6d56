// Run folders as rows of tables to come.
#pragma once

#include <string>
#include <vector>

#include "lib/eval/run_record.h"

namespace hax {

// The run folders among `paths` and, at any depth, inside those that are no run folders; each once, those of
// one path in alphabetical order. Links to folders are followed when named, not when met.
// A folder inside that cannot be looked into is told in a warning and goes to `passed_over`.
// Throws DataError naming a path that does not exist or holds no run, std::filesystem::filesystem_error for
// one that cannot be looked into.
std::vector<std::string> find_runs(const std::vector<std::string>& paths,
                                   std::vector<std::string>* passed_over = nullptr);

// What config.yaml, metrics.jsonl, result.json and the lock say, and the data's fingerprint and chance from a
// checkpoint if there is one. Throws DataError for damaged files, std::filesystem::filesystem_error for
// folders that cannot be looked into; of damaged records, and of records that end before the run did, a
// warning tells.
RunRecord read_run(const std::string& folder);

}  // namespace hax
