// Parts of an evaluation: its examples by slice columns, its questions by the distance to their answers.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/eval/evaluate.h"

namespace hax {

// What a task says of every scored position of the evaluated examples, end to end. Made by those who know
// the task; empty where nobody asked.
struct ScoredPositions {
  std::vector<int64_t> begin;            // (n + 1) example i has positions [begin[i], begin[i + 1])
  std::vector<int32_t> distance;         // tokens from the answer's earlier occurrence; -1: it has none
  std::vector<int32_t> error;            // index into kinds; -1: the prediction is right
  std::vector<std::string> error_kinds;  // of wrong predictions
};

// What evaluations are sliced by: columns of the data, and "distance" in powers of two.
class Slicing {
 public:
  // Throws UsageError naming a column that the data lacks and those that it has, or one given twice.
  Slicing(const std::vector<std::string>& by, const DataSpec& data, const std::string& data_name);
  bool by_distance() const { return by_distance_; }

  struct Slice {
    std::vector<float>
        example_accuracy;         // of the examples with a question in the slice: fraction right of those
    std::vector<int64_t> errors;  // (error kinds) wrong predictions; empty without positions
  };
  // Slices by their values, in ascending order. `positions` may be empty where distances are not asked for.
  std::map<std::vector<int32_t>, Slice> operator()(const Evaluation& evaluation,
                                                   const ScoredPositions& positions) const;
  // The i-th value of a slice for people: the number; "4..7" or "none" for distances.
  std::string text(size_t i, int32_t value) const;

 private:
  std::vector<int> columns_;  // into the data's slice columns; kDistance
  size_t width_;
  bool by_distance_ = false;
};

}  // namespace hax
