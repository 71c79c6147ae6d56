#include "lib/eval/run_table.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "lib/base/error.h"
#include "lib/config/names.h"
#include "lib/eval/evaluate.h"
#include "lib/eval/information_bound.h"

namespace hax {
namespace {

bool has(const std::vector<std::string>& keys, const std::string& key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

template <class Texts>
std::string joined(const Texts& texts, const char* between) {
  std::string out;
  for (const auto& text : texts) {
    if (!out.empty()) out += between;
    out += text;
  }
  return out;
}

// A reader must see the task and the mode of every number.
void show_kinds(const std::vector<RunRecord>& runs, Grouping& grouping) {
  for (const std::string key : {"task.name", "model.mode"}) {
    const auto kind = [&](const RunRecord& run) { return value_of_key(run.config, key).text; };
    const bool one = std::all_of(runs.begin(), runs.end(),
                                 [&](const RunRecord& run) { return kind(run) == kind(runs.front()); });
    if (!one && !has(grouping.rows, key) && !has(grouping.columns, key) && grouping.best_of != key)
      grouping.rows.push_back(key);
  }
}

// Last parts of keys; whole keys where two of them end alike, and for names that are not the run's.
std::vector<std::string> headings(const std::vector<std::string>& keys) {
  std::vector<std::string> names;
  for (const auto& key : keys) {
    const auto same_end = std::count_if(
        keys.begin(), keys.end(), [&](const std::string& other) { return leaf_of(other) == leaf_of(key); });
    names.push_back(same_end > 1 || leaf_of(key) == "name" ? key : std::string(leaf_of(key)));
  }
  return names;
}

std::string shown_value(const KeyValue& value) { return value.text.empty() ? "(empty)" : value.text; }

Cell value_cell(const KeyValue& value) {
  if (value.number && value.text.find_first_not_of("-0123456789") == std::string::npos)
    return static_cast<int64_t>(*value.number);
  if (value.number) return Number{*value.number, kShortest};
  return shown_value(value);
}

std::string plural(int64_t n, const std::string& noun) {
  return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
}

std::string chosen_from(const std::vector<CellOfRuns>& cells, const std::string& key) {
  int64_t least = cells.front().tried, most = least;
  for (const auto& cell : cells) {
    least = std::min(least, cell.tried);
    most = std::max(most, cell.tried);
  }
  const std::string noun = key == "train.lr" ? "learning rate" : key == "train.seed" ? "seed" : "value";
  return "best of " + (least < most ? std::to_string(least) + " to " : "") + plural(most, noun) +
         (noun == "value" ? " of " + key : "");
}

std::string caption(const std::vector<RunRecord>& runs, const std::vector<CellOfRuns>& cells,
                    const RunTableOptions& options) {
  const Grouping& g = options.grouping;
  std::set<std::string> tasks, modes;
  for (const auto& run : runs) {
    tasks.emplace(name_of(run.config.task.name));
    modes.emplace(name_of(run.config.model.mode));
  }
  std::vector<std::string> over;
  for (const auto& key : g.over) over.push_back(key == "train.seed" ? "seeds" : "values of " + key);
  std::string text = options.data_name.empty() ? "Best validation accuracy (%), " + joined(tasks, ", ")
                                               : "Accuracy (%) on " + options.data_name + ", " +
                                                     joined(tasks, ", ") + ", at each run's best validation";
  text += over.empty() ? "; single runs" : "; mean over " + joined(over, ", ") + " with 95 % interval";
  if (!g.best_of.empty()) text += "; " + chosen_from(cells, g.best_of) + " by mean validation accuracy";
  return text + "; statistics: " + joined(modes, ", ");
}

std::vector<std::string> notes(const std::vector<RunRecord>& runs, const std::vector<CellOfRuns>& cells,
                               const RunTableOptions& options) {
  std::map<RunStatus, int64_t> by_status;
  for (const auto& run : runs) ++by_status[run.status];
  std::string all = "Runs: " + std::to_string(runs.size());
  for (const auto& [status, n] : by_status)
    all += (status == by_status.begin()->first ? " (" : ", ") + std::to_string(n) + " " + status_name(status);
  std::vector<std::string> out = {
      all +
      "). n: runs in a mean; its interval is Student's t over them, and there is none for a single run."};
  int64_t unvalidated = 0;
  bool uneven = false;
  for (const auto& cell : cells) {
    unvalidated += cell.diverged_unvalidated;
    uneven = uneven || cell.uneven;
  }
  if (by_status.count(RunStatus::diverged) != 0) {
    out.push_back("A diverged run counts with its best validation before it diverged" +
                  (unvalidated > 0 ? "; never validated, it counts as 0 (" + plural(unvalidated, "run") + ")."
                                   : std::string(".")));
  }
  for (const auto& run : runs) {
    if (run.seen > 0)
      out.push_back(run.path + " was trained on " + plural(run.seen, "example") + " of " + options.data_name +
                    ".");
  }
  for (const auto& run : runs) {
    if (!run.accuracy) continue;
    std::string note = vocabulary_note(run.path, run.vocab_size, options.data_vocab_size);
    if (!note.empty()) out.push_back(std::move(note));
  }
  if (!options.left_out.empty()) {
    out.push_back("Left out, since they could not be read: " + joined(options.left_out, ", ") + ".");
  }
  const bool open = std::any_of(runs.begin(), runs.end(), [](const RunRecord& run) { return !run.ended(); });
  if (open) {
    out.emplace_back(options.grouping.count_unfinished
                         ? "Runs that have not ended count with their best so far."
                         : "Runs that have not ended are not in the means.");
  }
  if (uneven) {
    out.push_back("Some values of " + options.grouping.best_of +
                  " were compared over fewer runs than others.");
  }
  return out;
}

void add_outcome(const CellOfRuns& cell, std::vector<Cell>& row) {
  const MeanInterval& a = cell.accuracy;
  row.push_back(a.n > 0 ? Cell(Number{100.0 * a.mean, 2}) : Cell());
  row.push_back(a.n > 1 ? Cell(Number{100.0 * a.half_width, 2}) : Cell());
  row.emplace_back(a.n);
  row.emplace_back(cell.diverged);
  row.emplace_back(cell.unfinished);
}

template <class Of>
Cell mean_cell(const CellOfRuns& cell, Of value) {
  if (cell.counted.empty()) return {};
  double sum = 0.0;
  for (const RunRecord* run : cell.counted) sum += static_cast<double>(value(*run));
  return Number{sum / static_cast<double>(cell.counted.size()), 0};
}

// Of the first run that knows it: the runs of a cell share their architecture.
template <class Of>
Cell shared_cell(const CellOfRuns& cell, Of value) {
  for (const RunRecord* run : cell.counted) {
    if (const std::optional<int64_t> known = value(*run)) return *known;
  }
  return {};
}

void add_details(const CellOfRuns& cell, const Grouping& grouping, std::vector<Cell>& row) {
  std::vector<std::string> seeds;
  Numbers accuracies;
  for (size_t i = 0; i < cell.counted.size(); ++i) {
    std::vector<std::string> seed;
    for (const auto& key : grouping.over) seed.push_back(value_of_key(cell.counted[i]->config, key).text);
    seeds.push_back(joined(seed, "/"));
    accuracies.push_back({100.0 * cell.accuracies[i], 2});
  }
  row.emplace_back(joined(seeds, " "));
  row.emplace_back(accuracies);
  const auto& known = cell.counted;
  const auto run =
      std::find_if(known.begin(), known.end(), [](const RunRecord* r) { return r->chance > 0.0; });
  row.push_back(run == known.end() ? Cell() : Number{100.0 * (*run)->chance, 2});
  const auto shared = [&](auto value) { row.push_back(shared_cell(cell, value)); };
  using Count = std::optional<int64_t>;
  shared([](const RunRecord& r) { return r.parameters > 0 ? Count(r.parameters) : Count(); });
  shared([](const RunRecord& r) { return r.state ? Count(r.state->bytes.total()) : Count(); });
  shared([](const RunRecord& r) { return r.state ? Count(r.state->bytes.kept_keys) : Count(); });
  shared([](const RunRecord& r) { return r.state ? Count(r.state->tokens) : Count(); });
  row.push_back(mean_cell(cell, [](const RunRecord& run) { return run.best_step; }));
  row.push_back(mean_cell(cell, [](const RunRecord& run) { return run.step; }));
  row.push_back(mean_cell(cell, [](const RunRecord& run) { return run.tokens_seen; }));
  row.push_back(mean_cell(cell, [](const RunRecord& run) { return run.seconds; }));
}

void add_bound(const CellOfRuns& cell, std::vector<Cell>& row) {
  for (const RunRecord* run : cell.counted) {
    if (run->config.task.name != TaskKind::joint_recall) {
      throw UsageError("--bound: holds for joint_recall; " + run->path + " is on " +
                       std::string(name_of(run->config.task.name)));
    }
    // A state with keys grows: cut short, its count bounds nothing.
    if (!run->state || (run->state->bytes.kept_keys > 0 && run->state->tokens == kMeasuredTokens)) continue;
    const auto bits = 8.0 * static_cast<double>(run->state->bytes.total());
    const auto bound = information_bound(run->config.task, bits);
    row.emplace_back(Number{100.0 * bound.entry, 2});
    row.emplace_back(Number{100.0 * bound.whole_table, 2});
    return;
  }
  row.insert(row.end(), 2, Cell());
}

// "97.81 ± 0.12 (n 3, lr 0.003, 1 diverged)"
std::string pivot_text(const CellOfRuns& cell, const std::string& best_of) {
  const MeanInterval& a = cell.accuracy;
  std::string text = a.n > 0 ? text_of(Number{100.0 * a.mean, 2}) : "-";
  if (a.n > 1) text += " \u00b1 " + text_of(Number{100.0 * a.half_width, 2});
  text += " (n " + std::to_string(a.n);
  if (cell.best) text += ", " + std::string(leaf_of(best_of)) + " " + cell.best->text;
  if (cell.diverged > 0) text += ", " + std::to_string(cell.diverged) + " diverged";
  if (cell.unfinished > 0) text += ", " + std::to_string(cell.unfinished) + " unfinished";
  return text + ")";
}

}  // namespace

Table run_list(const std::vector<RunRecord>& runs, RunTableOptions options) {
  Grouping& g = options.grouping;
  show_kinds(runs, g);
  const auto cells = group_runs(runs, g);
  std::vector<std::string> keys = g.rows;
  keys.insert(keys.end(), g.columns.begin(), g.columns.end());
  Table table;
  table.caption = caption(runs, cells, options);
  table.columns = headings(keys);
  if (!g.best_of.empty()) table.columns.push_back("best " + std::string(leaf_of(g.best_of)));
  for (const char* name : {"accuracy %", "\u00b1 95 %", "n", "diverged", "unfinished"})
    table.columns.emplace_back(name);
  if (options.bound)
    for (const char* name : {"bound %", "whole table bound %"}) table.columns.emplace_back(name);
  if (options.details) {
    for (const char* name : {"seeds", "by seed %", "chance %", "parameters", "state bytes", "key bytes",
                             "state tokens", "best step", "steps", "tokens seen", "seconds"})
      table.columns.emplace_back(name);
  }
  for (const auto& cell : cells) {
    auto& row = table.rows.emplace_back();
    for (const auto& value : cell.rows) row.push_back(value_cell(value));
    for (const auto& value : cell.columns) row.push_back(value_cell(value));
    if (!g.best_of.empty()) row.push_back(cell.best ? value_cell(*cell.best) : Cell());
    add_outcome(cell, row);
    if (options.bound) add_bound(cell, row);
    if (options.details) add_details(cell, g, row);
  }
  table.notes = notes(runs, cells, options);
  if (options.details) {
    table.notes.emplace_back(
        "State bytes: what one sequence holds while decoding, counted after `state tokens` tokens of an "
        "example of the largest size, in the first run of each architecture; key bytes: the part of it that "
        "is "
        "kept keys and values; -: the model cannot decode. Steps, tokens and seconds: means over the runs.");
  }
  if (options.bound) {
    table.notes.emplace_back(
        "Bound: accuracy that no state of so many bits (8 a state byte) can exceed on average, by Fano's "
        "inequality; whole table: probability of getting all of it right (docs/tables.md).");
  }
  return table;
}

Table run_pivot(const std::vector<RunRecord>& runs, RunTableOptions options) {
  Grouping& g = options.grouping;
  if (options.details || options.bound) {
    throw UsageError(std::string(options.details ? "--details" : "--bound") +
                     ": stands in lists; leave out --columns, or write CSV or JSON");
  }
  show_kinds(runs, g);
  const auto cells = group_runs(runs, g);
  Table table;
  table.caption = caption(runs, cells, options);
  table.columns = headings(g.rows);
  const auto names = headings(g.columns);

  // Columns by their values; cells come row by row, so that a row may lack the first of them.
  std::vector<std::vector<KeyValue>> columns;
  {
    Grouping alone = g;
    alone.rows = g.columns;
    alone.columns = g.rows;
    for (const auto& cell : group_runs(runs, alone)) {
      if (columns.empty() || columns.back() != cell.rows) columns.push_back(cell.rows);
    }
  }
  for (const auto& values : columns) {
    std::vector<std::string> parts;
    for (size_t i = 0; i < values.size(); ++i) parts.push_back(names[i] + " " + shown_value(values[i]));
    table.columns.push_back(joined(parts, ", "));
  }
  const CellOfRuns* previous = nullptr;
  for (const auto& cell : cells) {
    if (previous == nullptr || previous->rows != cell.rows) {
      auto& row = table.rows.emplace_back();
      for (const auto& value : cell.rows) row.push_back(value_cell(value));
      row.resize(table.columns.size());
    }
    const auto column = std::find(columns.begin(), columns.end(), cell.columns) - columns.begin();
    table.rows.back()[g.rows.size() + static_cast<size_t>(column)] = pivot_text(cell, g.best_of);
    previous = &cell;
  }
  table.notes = notes(runs, cells, options);
  return table;
}

}  // namespace hax
