#include "lib/train/bench_step.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "lib/base/parallel.h"
#include "lib/data/batches.h"

namespace hax {

StepTimes bench_step(const Config& config, const ExampleSource& source, at::Device device, int64_t warmup,
                     int64_t steps) {
  const int64_t threads = config.train.threads;
  at::set_num_threads(threads > 0 ? static_cast<int>(threads) : hardware_threads());
  LanguageModel model(config.model, source.spec(), config.train.seed, device,
                      weight_dtype(config.train.precision));
  TrainStep step(model, config);
  const BatchSequence batches(source, config.train.seed, config.train.batch_size);
  StepTimes times;
  times.parameters = model.parameters().numel();
  for (int64_t s = 0; s < warmup + steps; ++s) {
    const auto start = std::chrono::steady_clock::now();
    // The step reads its metrics back, so it has ended when run() returns, but for the update that follows.
    const StepMetrics metrics = step.run(batches.batch(s), s, training_draws(config, s));
    if (device.is_cuda()) model.parameters().flat().sum().item<float>();
    const auto end = std::chrono::steady_clock::now();
    if (s < warmup) continue;
    times.milliseconds.push_back(std::chrono::duration<double, std::milli>(end - start).count());
    times.tokens_per_step += static_cast<double>(metrics.tokens) / static_cast<double>(steps);
  }
  return times;
}

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(std::floor(at)), high = static_cast<size_t>(std::ceil(at));
  return values[low] + (at - std::floor(at)) * (values[high] - values[low]);
}

}  // namespace hax
