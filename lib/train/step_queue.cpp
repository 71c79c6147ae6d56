#include "lib/train/step_queue.h"

#include <utility>

#include "lib/train/captured_steps.h"
#include "lib/train/guarded_steps.h"

namespace hax {
namespace {

class EagerSteps : public StepQueue {
 public:
  EagerSteps(TrainStep& step, const Config& config) : step_(step), config_(config) {}
  void push(const Batch& batch, int64_t step) override {
    if (failed()) return;
    done_.push_back(step_.run(batch, step, training_draws(config_, step)));
  }
  bool failed() const override { return !done_.empty() && !done_.back().finite(); }
  std::vector<StepMetrics> drain() override { return std::exchange(done_, {}); }

 private:
  TrainStep& step_;
  const Config config_;
  std::vector<StepMetrics> done_;
};

}  // namespace

std::unique_ptr<StepQueue> make_step_queue(LanguageModel& model, TrainStep& step, const Config& config,
                                           const DataSpec& data) {
  auto eager = std::make_unique<EagerSteps>(step, config);
#ifdef HAX_CUDA
  if (model.device().is_cuda())
    return guard_steps(make_captured_steps(model, step, config, data, std::move(eager)), model.device());
#endif
  return guard_steps(std::move(eager), model.device());
}

}  // namespace hax
