#include "lib/train/bench_step.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "lib/base/parallel.h"
#include "lib/data/prefetch.h"
#include "lib/train/step_queue.h"

namespace hax {
namespace {

constexpr int64_t kStepsTogether = 10;  // between two waits for the device

}  // namespace

StepTimes bench_step(const Config& config, const ExampleSource& source, at::Device device, int64_t warmup,
                     int64_t steps) {
  const int64_t threads = config.train.threads;
  at::set_num_threads(threads > 0 ? static_cast<int>(threads) : hardware_threads());
  LanguageModel model(config.model, source.spec(), config.train.seed, device,
                      weight_dtype(config.train.precision));
  TrainStep step(model, config);
  const BatchSequence batches(source, config.train.seed, config.train.batch_size);
  const auto queue = make_step_queue(model, step, config, source.spec());
  StepTimes times;
  times.parameters = model.parameters().numel();
  BatchPrefetch ahead(batches, 0, batches_ahead(device));
  for (int64_t s = 0; s < warmup; ++s) queue->push(ahead.next(), s);
  queue->drain();
  for (int64_t s = 0; s < steps;) {
    const int64_t here = std::min(kStepsTogether, steps - s);
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < here; ++i) queue->push(ahead.next(), warmup + s + i);
    for (const StepMetrics& metrics : queue->drain())
      times.tokens_per_step += static_cast<double>(metrics.tokens) / static_cast<double>(steps);
    const auto end = std::chrono::steady_clock::now();
    times.milliseconds.push_back(std::chrono::duration<double, std::milli>(end - start).count() /
                                 static_cast<double>(here));
    s += here;
  }
  return times;
}

std::vector<KernelTime> profile_step(const Config& config, const ExampleSource& source, at::Device device,
                                     int64_t warmup, int64_t steps) {
  LanguageModel model(config.model, source.spec(), config.train.seed, device,
                      weight_dtype(config.train.precision));
  TrainStep step(model, config);
  const BatchSequence batches(source, config.train.seed, config.train.batch_size);
  const auto queue = make_step_queue(model, step, config, source.spec());
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) queue->push(batches.batch(s), s);
    queue->drain();
  };
  run(0, warmup);
  return profile_kernels([&] { run(warmup, warmup + steps); });
}

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(std::floor(at)), high = static_cast<size_t>(std::ceil(at));
  return values[low] + (at - std::floor(at)) * (values[high] - values[low]);
}

}  // namespace hax
