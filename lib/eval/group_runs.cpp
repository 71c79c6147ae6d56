#include "lib/eval/group_runs.h"

#include <algorithm>
#include <set>

#include "lib/base/error.h"
#include "lib/config/write.h"

namespace hax {
namespace {

using Members = std::vector<const RunRecord*>;

bool has(const std::vector<std::string>& keys, const std::string& key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

std::vector<KeyValue> values_of(const RunRecord& run, const std::vector<std::string>& keys) {
  std::vector<KeyValue> values;
  values.reserve(keys.size());
  for (const auto& key : keys) values.push_back(value_of_key(run.config, key));
  return values;
}

// Members by equal `value(run)`, in the order of first appearance.
template <class Value, class Of>
std::vector<std::pair<Value, Members>> partition(const Members& runs, Of value) {
  std::vector<std::pair<Value, Members>> parts;
  for (const RunRecord* run : runs) {
    const Value v = value(*run);
    auto part = std::find_if(parts.begin(), parts.end(), [&](const auto& p) { return p.first == v; });
    if (part == parts.end()) part = parts.insert(parts.end(), {v, {}});
    part->second.push_back(run);
  }
  return parts;
}

std::string cell_name(const CellOfRuns& cell, const Grouping& grouping) {
  std::string text;
  const auto add = [&](const std::vector<std::string>& keys, const std::vector<KeyValue>& values) {
    for (size_t i = 0; i < keys.size(); ++i)
      text += (text.empty() ? "" : ", ") + keys[i] + " = " + values[i].text;
  };
  add(grouping.rows, cell.rows);
  add(grouping.columns, cell.columns);
  return text.empty() ? "the only cell" : "the cell " + text;
}

// "train.lr (0.001, 0.003)"
std::string key_with_values(const std::string& key, const Members& runs) {
  std::vector<std::string> seen;
  for (const RunRecord* run : runs) {
    const std::string text = value_of_key(run->config, key).text;
    if (std::find(seen.begin(), seen.end(), text) == seen.end()) seen.push_back(text);
  }
  std::string list;
  for (size_t i = 0; i < seen.size(); ++i)
    list += i == 4 ? ", ..." : i > 4 ? "" : (i ? ", " : "") + (seen[i].empty() ? "\"\"" : seen[i]);
  return key + " (" + list + ")";
}

// Runs of one cell may differ in the seed, in what is averaged over and in what is chosen from.
void check_alike(const CellOfRuns& cell, const Members& runs, const Grouping& grouping) {
  std::vector<std::string> strange;
  const RunRecord& first = *runs.front();
  for (const RunRecord* run : runs) {
    for (const auto& line : difference(first.config, run->config)) {
      const std::string key = line.substr(0, line.find(':'));
      if (changes_results(key) && !has(grouping.over, key) && key != grouping.best_of && !has(strange, key))
        strange.push_back(key);
    }
  }
  if (!strange.empty()) {
    std::string text = "table: runs of " + cell_name(cell, grouping) + " differ in";
    for (const auto& key : strange) text += "\n  " + key_with_values(key, runs);
    throw UsageError(text +
                     "\nadd them to --rows or --columns, choose among them with --best-of, average over them "
                     "with --over, or name fewer runs");
  }
  const auto names_data = [&](const std::string& key) {
    return has(grouping.over, key) || key == grouping.best_of;
  };
  if (names_data("data.seed") || names_data("data.source")) return;
  for (const RunRecord* run : runs) {
    if (run->data_fingerprint.empty() || first.data_fingerprint.empty() ||
        run->data_fingerprint == first.data_fingerprint)
      continue;
    throw UsageError("table: runs of " + cell_name(cell, grouping) + " were trained on different data:\n  " +
                     first.path + " on " + first.data_fingerprint + " (" + first.config.data.path + ")\n  " +
                     run->path + " on " + run->data_fingerprint + " (" + run->config.data.path +
                     ")\nname the runs of one dataset, or add data.path to --rows or --columns");
  }
}

// A run repeated would count as a second seed.
void check_distinct(const Members& runs) {
  for (size_t i = 0; i < runs.size(); ++i) {
    for (size_t j = i + 1; j < runs.size(); ++j) {
      const auto changes = difference(runs[i]->config, runs[j]->config);
      const bool same = std::none_of(changes.begin(), changes.end(), [](const std::string& line) {
        return changes_results(std::string_view(line).substr(0, line.find(':')));
      });
      if (same) {
        throw UsageError("table: " + runs[i]->path + " and " + runs[j]->path +
                         " are the same run (equal configs and seeds), which would count twice; name one of "
                         "them");
      }
    }
  }
}

double valid_or_zero(const RunRecord& run) { return std::max(0.0, run.valid_accuracy); }

void summarise(const Members& runs, const Grouping& grouping, CellOfRuns& cell) {
  for (const RunRecord* run : runs) {
    if (!run->ended()) ++cell.unfinished;
    if (!counts(*run, grouping)) continue;
    cell.counted.push_back(run);
    const bool validated = run->valid_accuracy >= 0.0;
    cell.accuracies.push_back(grouping.evaluated && validated ? run->accuracy.value() : valid_or_zero(*run));
    if (run->status != RunStatus::diverged) continue;
    ++cell.diverged;
    if (!validated) ++cell.diverged_unvalidated;
  }
  cell.accuracy = mean_interval(cell.accuracies);
}

Members choose_best(const Members& runs, const Grouping& grouping, CellOfRuns& cell) {
  const auto parts = partition<KeyValue>(
      runs, [&](const RunRecord& run) { return value_of_key(run.config, grouping.best_of); });
  cell.tried = static_cast<int64_t>(parts.size());
  const std::pair<KeyValue, Members>* best = nullptr;
  double best_mean = 0.0;
  std::set<int64_t> numbers;
  for (const auto& part : parts) {
    std::vector<double> values;
    for (const RunRecord* run : part.second) {
      if (counts(*run, grouping)) values.push_back(valid_or_zero(*run));
    }
    numbers.insert(static_cast<int64_t>(values.size()));
    if (values.empty()) continue;
    const double mean = mean_interval(values).mean;
    if (best != nullptr && mean <= best_mean) continue;
    best = &part;
    best_mean = mean;
  }
  cell.uneven = numbers.size() > 1;
  if (best == nullptr) return runs;  // none has ended: all are counted as unfinished
  cell.best = best->first;
  return best->second;
}

// Stable: values that are not both numbers keep the order in which they appeared.
bool comes_before(const std::vector<KeyValue>& a, const std::vector<KeyValue>& b,
                  const std::vector<std::vector<KeyValue>>& appearance) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    if (a[i].number && b[i].number) return *a[i].number < *b[i].number;
    const auto& order = appearance[i];
    return std::find(order.begin(), order.end(), a[i]) < std::find(order.begin(), order.end(), b[i]);
  }
  return false;
}

}  // namespace

const char* status_name(RunStatus status) {
  switch (status) {
    case RunStatus::finished:
      return "finished";
    case RunStatus::target_reached:
      return "target reached";
    case RunStatus::diverged:
      return "diverged";
    case RunStatus::running:
      return "running";
    case RunStatus::stopped:
      return "stopped";
    case RunStatus::failed:
      return "failed";
  }
  return "";
}

bool counts(const RunRecord& run, const Grouping& grouping) {
  return run.ended() || (grouping.count_unfinished && run.valid_accuracy >= 0.0);
}

std::vector<CellOfRuns> group_runs(const std::vector<RunRecord>& runs, const Grouping& grouping) {
  Members all;
  for (const auto& run : runs) all.push_back(&run);
  std::vector<std::string> keys = grouping.rows;
  keys.insert(keys.end(), grouping.columns.begin(), grouping.columns.end());

  std::vector<std::vector<KeyValue>> appearance(keys.size());
  for (const auto& run : runs) {
    const auto values = values_of(run, keys);
    for (size_t i = 0; i < keys.size(); ++i) {
      if (std::find(appearance[i].begin(), appearance[i].end(), values[i]) == appearance[i].end())
        appearance[i].push_back(values[i]);
    }
  }
  auto parts =
      partition<std::vector<KeyValue>>(all, [&](const RunRecord& run) { return values_of(run, keys); });
  std::stable_sort(parts.begin(), parts.end(),
                   [&](const auto& a, const auto& b) { return comes_before(a.first, b.first, appearance); });

  std::vector<CellOfRuns> cells;
  for (const auto& [values, members] : parts) {
    CellOfRuns& cell = cells.emplace_back();
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(grouping.rows.size());
    cell.rows.assign(values.begin(), middle);
    cell.columns.assign(middle, values.end());
    check_alike(cell, members, grouping);
    check_distinct(members);
    summarise(grouping.best_of.empty() ? members : choose_best(members, grouping, cell), grouping, cell);
  }
  return cells;
}

}  // namespace hax
