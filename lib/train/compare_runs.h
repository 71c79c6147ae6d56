// Two run folders byte by byte.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hax {

struct ComparedFile {
  std::string name;        // inside the run folder
  int64_t bytes = 0;       // in the first run, 0 where it has none
  std::string difference;  // the first one found, in words; empty: equal
};

// Every file of either run but what must differ or belongs to no run's results: timing.jsonl, lock, kept
// evaluations and what was set aside. Of result.json all but the seconds is compared. In name order.
// Of checkpoints a difference names the tensor and the element, of text the line.
std::vector<ComparedFile> compare_runs(const std::string& a, const std::string& b);

}  // namespace hax
