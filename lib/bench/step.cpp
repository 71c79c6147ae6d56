#include "lib/bench/step.h"

#include <algorithm>
#include <chrono>

#include "lib/base/memory.h"
#include "lib/base/parallel.h"
#include "lib/data/prefetch.h"
#include "lib/train/step_queue.h"

namespace hax {
namespace {

constexpr int64_t kStepsTogether = 10;  // between two waits for the device

// A model and what trains it, set up as hax train does.
class Bench {
 public:
  Bench(const Config& config, const ExampleSource& source, at::Device device)
      : config_(config),
        device_(device),
        model_(config.model, source.spec(), config.train.seed, device, weight_dtype(config.train.precision)),
        step_(model_, config),
        batches_(source, config.train.seed, config.train.batch_size),
        queue_(make_step_queue(model_, step_, config, source.spec())),
        ahead_(batches_, 0, batches_ahead(device)) {}

  // The next `count` steps, and the wait for them.
  std::vector<StepMetrics> run(int64_t count) {
    for (int64_t i = 0; i < count; ++i) queue_->push(ahead_.next(), next_++);
    return queue_->drain();
  }

  Products products() {
    const Batch batch = ahead_.next();
    return time_products([&] { step_.run(batch, next_, training_draws(config_, next_)); }, device_,
                         TimingOptions());
  }
  int64_t parameters() const { return model_.parameters().numel(); }

 private:
  const Config& config_;
  at::Device device_;
  LanguageModel model_;
  TrainStep step_;
  const BatchSequence batches_;
  const std::unique_ptr<StepQueue> queue_;
  BatchPrefetch ahead_;
  int64_t next_ = 0;
};

// What hax train does to the process.
void prepare(const Config& config, at::Device device) {
  const int64_t threads = config.train.threads;
  at::set_num_threads(threads > 0 ? static_cast<int>(threads) : hardware_threads());
  if (device.is_cpu()) keep_freed_memory();
}

}  // namespace

StepTimes bench_step(const Config& config, const ExampleSource& source, at::Device device, int64_t warmup,
                     int64_t steps) {
  prepare(config, device);
  StepTimes times;
  const PeakMemory peak(device);
  Bench bench(config, source, device);
  times.parameters = bench.parameters();
  bench.run(warmup);
  for (int64_t s = 0; s < steps;) {
    const int64_t here = std::min(kStepsTogether, steps - s);
    const auto start = std::chrono::steady_clock::now();
    for (const StepMetrics& metrics : bench.run(here))
      times.tokens_per_step += static_cast<double>(metrics.tokens) / static_cast<double>(steps);
    const auto end = std::chrono::steady_clock::now();
    times.milliseconds.push_back(std::chrono::duration<double, std::milli>(end - start).count() /
                                 static_cast<double>(here));
    s += here;
  }
  times.peak_bytes = peak.bytes();
  times.products = bench.products();
  return times;
}

std::vector<KernelTime> profile_step(const Config& config, const ExampleSource& source, at::Device device,
                                     int64_t warmup, int64_t steps, const std::string& trace) {
  prepare(config, device);
  Bench bench(config, source, device);
  bench.run(warmup);
  return profile_kernels([&] { bench.run(steps); }, trace);
}

}  // namespace hax
