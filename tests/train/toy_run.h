// A run of the toy task on the CPU, stopped where a test wants it, and what two runs differ in.
#pragma once

#include <functional>
#include <string>

#include "lib/train/compare_runs.h"
#include "lib/train/trainer.h"
#include "tests/train/toy_source.h"

namespace hax::test {

using StopHook = std::function<bool(int64_t)>;

inline StopHook stop_at(int64_t at) {
  return [at](int64_t step) { return step >= at; };
}

inline TrainOutcome run_toy(const std::string& path, const Config& config, const StopHook& should_stop = {}) {
  const ToySource training(1, 500), validation(2, 64);
  TrainHooks hooks;
  hooks.should_stop = should_stop;
  return train(RunFolder::create_or_resume(path, config), training, validation, at::kCPU, hooks);
}

// Empty when the runs hold the same bytes.
inline std::string differences(const std::string& a, const std::string& b) {
  std::string text;
  for (const auto& file : compare_runs(a, b)) {
    if (!file.difference.empty()) text += file.name + ": " + file.difference + "\n";
  }
  return text;
}

}  // namespace hax::test
