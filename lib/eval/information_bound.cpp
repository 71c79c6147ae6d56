#include "lib/eval/information_bound.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <string>

#include "lib/config/names.h"

namespace hax {
namespace {

// Bits an entry that is right with probability p must have: log2 V less the most that Fano's inequality
// leaves open.
double bits_an_entry(double p, double values) {
  const double e = 1.0 - p;
  const auto plogp = [](double x) { return x > 0.0 ? x * std::log2(x) : 0.0; };
  const double wrong_values = values > 1.0 ? e * std::log2(values - 1.0) : 0.0;
  return std::log2(values) + plogp(p) + plogp(e) - wrong_values;
}

void check(double bits, int64_t entries, int64_t values) {
  if (bits >= 0.0 && entries >= 1 && values >= 1) return;
  throw std::invalid_argument("information bound: " + std::to_string(bits) + " bits, " +
                              std::to_string(entries) + " entries of " + std::to_string(values) +
                              " values; wanted >= 0, >= 1, >= 1");
}

}  // namespace

double whole_table_bound(double bits, int64_t entries, int64_t values) {
  check(bits, entries, values);
  const double needed = static_cast<double>(entries) * std::log2(static_cast<double>(values));
  return std::exp2(std::min(0.0, bits - needed));
}

double entry_bound(double bits, int64_t entries, int64_t values) {
  check(bits, entries, values);
  const auto v = static_cast<double>(values);
  const double share = bits / static_cast<double>(entries);
  if (share >= std::log2(v)) return 1.0;
  double low = 1.0 / v, high = 1.0;
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (bits_an_entry(middle, v) <= share ? low : high) = middle;
  }
  return low;
}

InformationBound information_bound(const TaskConfig& task, double bits) {
  if (task.name != TaskKind::joint_recall) {
    throw std::invalid_argument("information_bound: the task is " + std::string(name_of(task.name)) +
                                "; wanted joint_recall");
  }
  const JointRecallConfig& c = task.joint_recall;
  std::map<int64_t, int64_t> sizes;  // entries -> how many of the sizes have so many
  for (int64_t contexts = c.n_context_min; contexts <= c.n_context_max; ++contexts) {
    for (int64_t keys = c.n_key_min; keys <= c.n_key_max; ++keys) ++sizes[contexts * keys];
  }
  InformationBound sum{0.0, 0.0};
  int64_t count = 0;
  for (const auto& [entries, times] : sizes) {
    sum.entry += static_cast<double>(times) * entry_bound(bits, entries, c.n_value);
    sum.whole_table += static_cast<double>(times) * whole_table_bound(bits, entries, c.n_value);
    count += times;
  }
  return {sum.entry / static_cast<double>(count), sum.whole_table / static_cast<double>(count)};
}

}  // namespace hax
