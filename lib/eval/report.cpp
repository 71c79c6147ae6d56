#include "lib/eval/report.h"

#include <numeric>

#include "lib/config/names.h"

namespace hax {
namespace {

const std::vector<std::string> kRunColumns = {"run", "seed", "mode", "patterns", "k"};

std::vector<Cell> run_cells(const EvaluatedRun& run) {
  const Config& config = run.info.config;
  const SparseConfig& sparse = config.model.sparse;
  return {run.label, config.train.seed, std::string(name_of(config.model.mode)), pattern_names(config.model),
          sparse.total_share()};
}

Cell slice_cell(const Slicing& slicing, const std::vector<std::string>& by, size_t i, int32_t value) {
  if (by[i] == "distance") return slicing.text(i, value);
  return int64_t{value};
}

constexpr const char* kDistanceNote =
    "distance: tokens from the place where the answer stands to the question; an example counts in a row "
    "with its questions of those distances; none: no single token holds the answer.";

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

// Accuracy on what a model was trained on is not what the table is for.
void add_seen_notes(const std::vector<EvaluatedRun>& runs, Table& table) {
  for (const auto& run : runs) {
    if (run.seen.value_or(0) == 0) continue;
    table.notes.push_back(run.label + " was trained on " + std::to_string(*run.seen) + " of these " +
                          std::to_string(run.evaluation.size()) + " examples.");
  }
}

void add_vocabulary_notes(const std::vector<EvaluatedRun>& runs, const DataSpec& data, Table& table) {
  for (const auto& run : runs) {
    std::string note = vocabulary_note(run.label, run.info.data.vocab_size, data.vocab_size);
    if (!note.empty()) table.notes.push_back(std::move(note));
  }
}

template <class E>
std::string joined(const std::vector<E>& values) {
  std::string names;
  for (const E value : values) {
    if (!names.empty()) names += '+';
    names += name_of(value);
  }
  return names;
}

}  // namespace

std::string mixer_names(const ModelConfig& config) { return joined(config.mixer); }

std::string pattern_names(const ModelConfig& config) {
  return config.sparse.patterns.empty() ? "none" : joined(config.sparse.patterns);
}

Table accuracy_table(const std::vector<EvaluatedRun>& runs, const DataSpec& data,
                     const std::string& data_name, const std::vector<std::string>& by) {
  const Slicing slicing(by, data, data_name);
  Table table;
  table.caption = "Accuracy on " + data_name + " (" + data.task + ")";
  table.columns = kRunColumns;
  table.columns.insert(table.columns.end(), by.begin(), by.end());
  for (const char* name : {"accuracy %", "s.e.", "chance %", "examples"}) table.columns.emplace_back(name);
  if (by.empty()) {
    for (const char* name : {"loss", "step", "parameters", "state bytes", "key bytes"})
      table.columns.emplace_back(name);
  }
  for (const auto& run : runs) {
    for (const auto& [values, slice] : slicing(run.evaluation, run.positions)) {
      std::vector<Cell> row = run_cells(run);
      for (size_t i = 0; i < values.size(); ++i) row.push_back(slice_cell(slicing, by, i, values[i]));
      const MeanAndError mean = mean_and_error(slice.example_accuracy);
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
  if (slicing.by_distance()) table.notes.emplace_back(kDistanceNote);
  if (by.empty() && !runs.empty()) table.notes.push_back(state_note(runs));
  add_seen_notes(runs, table);
  add_vocabulary_notes(runs, data, table);
  return table;
}

Table error_table(const std::vector<EvaluatedRun>& runs, const DataSpec& data, const std::string& data_name,
                  const std::vector<std::string>& by) {
  const Slicing slicing(by, data, data_name);
  Table table;
  table.caption = "Wrong answers on " + data_name + " (" + data.task + "), by kind";
  table.columns = kRunColumns;
  table.columns.insert(table.columns.end(), by.begin(), by.end());
  for (const char* name : {"accuracy %", "what was answered", "share of errors %", "errors"})
    table.columns.emplace_back(name);
  for (const auto& run : runs) {
    for (const auto& [values, slice] : slicing(run.evaluation, run.positions)) {
      const int64_t all = std::accumulate(slice.errors.begin(), slice.errors.end(), int64_t{0});
      for (size_t kind = 0; kind < slice.errors.size(); ++kind) {
        std::vector<Cell> row = run_cells(run);
        for (size_t i = 0; i < values.size(); ++i) row.push_back(slice_cell(slicing, by, i, values[i]));
        row.emplace_back(Number{100.0 * mean_and_error(slice.example_accuracy).mean, 2});
        row.emplace_back(run.positions.error_kinds[kind]);
        if (all > 0) {
          row.emplace_back(
              Number{100.0 * static_cast<double>(slice.errors[kind]) / static_cast<double>(all), 2});
        } else {
          row.emplace_back();
        }
        row.emplace_back(slice.errors[kind]);
        table.rows.push_back(std::move(row));
      }
    }
  }
  table.notes = {
      "errors: wrong predictions at scored positions, all examples together; of several kinds that "
      "hold the first counts."};
  if (slicing.by_distance()) table.notes.emplace_back(kDistanceNote);
  add_seen_notes(runs, table);
  add_vocabulary_notes(runs, data, table);
  return table;
}

}  // namespace hax
