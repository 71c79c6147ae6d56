#include "lib/eval/slices.h"

#include <algorithm>
#include <bit>
#include <set>
#include <stdexcept>

#include "lib/base/error.h"

namespace hax {
namespace {

constexpr int kDistance = -1;
constexpr const char* kDistanceName = "distance";

// Distances [2^b, 2^(b+1)) have bin b.
int32_t distance_bin(int32_t distance) {
  return distance < 1 ? -1 : static_cast<int32_t>(std::bit_width(static_cast<uint32_t>(distance))) - 1;
}

}  // namespace

Slicing::Slicing(const std::vector<std::string>& by, const DataSpec& data, const std::string& data_name)
    : width_(data.slice_columns.size()) {
  std::set<std::string> seen;
  for (const auto& name : by) {
    if (!seen.insert(name).second) throw UsageError("--by " + name + ": is given twice");
    const auto found = std::find(data.slice_columns.begin(), data.slice_columns.end(), name);
    if (found != data.slice_columns.end()) {
      columns_.push_back(static_cast<int>(found - data.slice_columns.begin()));
    } else if (name == kDistanceName) {
      columns_.push_back(kDistance);
      by_distance_ = true;
    } else {
      std::string known;
      for (const auto& column : data.slice_columns) known += column + ", ";
      throw UsageError("--by " + name + ": " + data_name + " has no such column; it has " + known +
                       kDistanceName);
    }
  }
}

std::map<std::vector<int32_t>, Slicing::Slice> Slicing::operator()(const Evaluation& evaluation,
                                                                   const ScoredPositions& positions) const {
  std::map<std::vector<int32_t>, Slice> slices;
  const auto value_of = [&](size_t c, int64_t example, int64_t position) {
    return columns_[c] == kDistance
               ? distance_bin(positions.distance[position])
               : evaluation.slices[static_cast<size_t>(example) * width_ + static_cast<size_t>(columns_[c])];
  };
  std::vector<int32_t> values(columns_.size());
  if (positions.begin.empty()) {
    if (by_distance_) throw std::invalid_argument("Slicing: distances are asked for and none are known");
    for (int64_t i = 0; i < evaluation.size(); ++i) {
      for (size_t c = 0; c < columns_.size(); ++c) values[c] = value_of(c, i, 0);
      slices[values].example_accuracy.push_back(evaluation.example_accuracy[i]);
    }
    return slices;
  }
  for (int64_t i = 0; i < evaluation.size(); ++i) {
    struct Count {
      int64_t right = 0, all = 0;
    };
    std::map<std::vector<int32_t>, Count> counts;
    for (int64_t p = positions.begin[i]; p < positions.begin[i + 1]; ++p) {
      for (size_t c = 0; c < columns_.size(); ++c) values[c] = value_of(c, i, p);
      Count& count = counts[values];
      ++count.all;
      const int32_t error = positions.error[p];
      if (error < 0) {
        ++count.right;
        continue;
      }
      auto& errors = slices[values].errors;
      errors.resize(positions.error_kinds.size());
      ++errors.at(static_cast<size_t>(error));
    }
    for (const auto& [key, count] : counts) {
      slices[key].example_accuracy.push_back(static_cast<float>(count.right) / static_cast<float>(count.all));
      slices[key].errors.resize(positions.error_kinds.size());
    }
  }
  return slices;
}

std::string Slicing::text(size_t i, int32_t value) const {
  if (columns_[i] != kDistance) return std::to_string(value);
  if (value < 0) return "none";
  const int64_t low = int64_t{1} << value;
  return low == 1 ? "1" : std::to_string(low) + ".." + std::to_string(2 * low - 1);
}

}  // namespace hax
