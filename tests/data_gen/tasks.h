// A small configuration of every task, and single draws, for tests that walk all of them.
#pragma once

#include <cmath>
#include <vector>

#include "data_gen/generate.h"
#include "data_gen/task.h"
#include "lib/config/names.h"

namespace hax::test {

inline TaskConfig small_task(TaskKind kind) {
  TaskConfig task;
  task.name = kind;
  task.joint_recall = {2, 3, 2, 4, 16, 0};
  task.multilevel_joint_recall = {{2, 3, 2}, 8, 0};
  task.noisy_joint_recall = {2, 3, 2, 3, 8, 70, 5, true, 0};
  task.mqar = {256, {32, 64, 16}, {4, 8, 4}, {3, 1, 2}, 0.5, true};
  task.mqar_compositional = {96, 34, 4, 0.5, true};
  task.mqar_forgetting = {96, 32, 5, 3, 0.5, true};
  task.induction_heads = {24, 8};
  task.selective_copying = {24, 5, 6, 2};
  return task;
}

inline std::vector<TaskKind> every_task() {
  std::vector<TaskKind> kinds;
  for (const auto& entry : enum_names<TaskKind>) kinds.push_back(entry.value);
  return kinds;
}

inline Example drawn(const Task& task, int64_t index, int64_t seed = 7) {
  Example example;
  draw_example(task, seed, Split::train, index, 0, example);
  return example;
}

// Chi-square of counts against equal expectations, within five standard deviations.
inline bool uniform(const std::vector<double>& counts) {
  double total = 0.0, chi2 = 0.0;
  for (double count : counts) total += count;
  const double expected = total / static_cast<double>(counts.size());
  for (double count : counts) chi2 += (count - expected) * (count - expected) / expected;
  const double freedom = static_cast<double>(counts.size()) - 1;
  return total > 0 && chi2 < freedom + 5 * std::sqrt(2 * freedom);
}

}  // namespace hax::test
