#include "lib/eval/report.h"

#include <algorithm>
#include <map>

#include "lib/base/error.h"
#include "lib/config/names.h"

namespace hax {
namespace {

std::vector<size_t> find_columns(const DataSpec& data, const std::vector<std::string>& by,
                                 const std::string& data_name) {
  std::vector<size_t> columns;
  for (const auto& name : by) {
    const auto found = std::find(data.slice_columns.begin(), data.slice_columns.end(), name);
    if (found == data.slice_columns.end()) {
      std::string known;
      for (const auto& column : data.slice_columns) known += (known.empty() ? "" : ", ") + column;
      throw UsageError("--by " + name + ": " + data_name + " has no such column; it has " +
                       (known.empty() ? "none" : known));
    }
    columns.push_back(static_cast<size_t>(found - data.slice_columns.begin()));
  }
  return columns;
}

std::vector<Cell> accuracy_cells(const MeanAndError& mean) {
  return {Number{100.0 * mean.mean, 2}, Number{100.0 * mean.standard_error, 2}};
}

std::vector<Cell> state_cells(const std::optional<MeasuredState>& state) {
  if (!state) return {Cell(), Cell()};
  return {state->bytes.total(), state->bytes.kept_keys};
}

std::string state_note(const std::vector<EvaluatedRun>& runs) {
  std::string note, unmeasured;
  for (const auto& run : runs) {
    if (run.state) {
      note = "state bytes: what one sequence holds while decoding, counted after the first " +
             std::to_string(run.state->tokens) +
             " tokens of the longest example; key bytes: the part of it that is kept keys and values.";
    } else {
      unmeasured = "-: the statistics of paper mode look ahead, so the model cannot decode.";
    }
  }
  return note + (note.empty() || unmeasured.empty() ? "" : " ") + unmeasured;
}

template <class E>
std::string joined(const std::vector<E>& values) {
  std::string names;
  for (const E value : values) names += (names.empty() ? "" : "+") + std::string(name_of(value));
  return names;
}

}  // namespace

std::string mixer_names(const ModelConfig& config) { return joined(config.mixer); }

std::string pattern_names(const ModelConfig& config) {
  return config.sparse.patterns.empty() ? "none" : joined(config.sparse.patterns);
}

Table accuracy_table(const std::vector<EvaluatedRun>& runs, const DataSpec& data,
                     const std::string& data_name, const std::vector<std::string>& by) {
  const auto columns = find_columns(data, by, data_name);
  Table table;
  table.caption = "Accuracy on " + data_name + " (" + data.task + ")";
  table.columns = {"run", "seed", "mode", "patterns", "k"};
  table.columns.insert(table.columns.end(), by.begin(), by.end());
  for (const char* name : {"accuracy %", "s.e.", "chance %", "examples"}) table.columns.emplace_back(name);
  if (by.empty()) {
    for (const char* name : {"loss", "step", "parameters", "state bytes", "key bytes"})
      table.columns.emplace_back(name);
  }
  for (const auto& run : runs) {
    const auto& config = run.info.config;
    const SparseConfig& sparse = config.model.sparse;
    const std::vector<Cell> head = {run.label, config.train.seed, std::string(name_of(config.model.mode)),
                                    pattern_names(config.model), sparse.patterns.empty() ? 0 : sparse.k};
    std::map<std::vector<int32_t>, Evaluation> groups;
    const size_t width = data.slice_columns.size();
    for (int64_t i = 0; i < run.evaluation.size(); ++i) {
      std::vector<int32_t> values;
      values.reserve(columns.size());
      for (size_t c : columns) values.push_back(run.evaluation.slices[i * width + c]);
      groups[values].example_accuracy.push_back(run.evaluation.example_accuracy[i]);
    }
    for (const auto& [values, group] : groups) {
      std::vector<Cell> row = head;
      for (int32_t value : values) row.emplace_back(int64_t{value});
      const MeanAndError mean = accuracy(group);
      for (auto& cell : accuracy_cells(mean)) row.push_back(cell);
      row.emplace_back(Number{100.0 * data.chance, 2});
      row.emplace_back(mean.n);
      if (by.empty()) {
        row.emplace_back(Number{run.evaluation.loss, 4});
        row.emplace_back(run.info.step);
        row.emplace_back(run.parameters);
        for (auto& cell : state_cells(run.state)) row.push_back(cell);
      }
      table.rows.push_back(std::move(row));
    }
  }
  table.notes = {
      "accuracy: per example the fraction of asked values that are right (argmax over the whole vocabulary), "
      "then the "
      "mean; s.e.: its standard error over examples.",
      "chance: guessing uniformly among the possible answers; k: keys that a query may attend to."};
  if (by.empty() && !runs.empty()) table.notes.push_back(state_note(runs));
  return table;
}

}  // namespace hax
