#include "lib/eval/captured_scorer.h"

#include <c10/cuda/CUDAGuard.h>

#include <array>
#include <utility>

#include "lib/base/log.h"
#include "lib/model/device_batches.h"
#include "lib/model/device_draws.h"
#include "lib/model/shape_graphs.h"
#include "lib/ops/cross_entropy.h"
#include "lib/ops/lanes.h"

namespace hax {
namespace {

using c10::cuda::CUDAStream;

class CapturedScorer : public Scorer {
 public:
  CapturedScorer(const LanguageModel& model, const EvaluationDraws& draws, const DataSpec& data,
                 int64_t batch_size, bool with_predicted, std::unique_ptr<Scorer> fallback)
      : model_(model),
        batch_size_(batch_size),
        with_predicted_(with_predicted),
        fallback_(std::move(fallback)),
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, model.device().index())),
        batches_(batch_size, data, stream_),
        graphs_(stream_),
        draws_(draws.seed(), on_device(draws), batches_.step()) {
    const auto device = at::TensorOptions().device(model.device());
    const int64_t most = batch_size * data.input_length();
    correct_ = at::zeros({most}, device.dtype(at::kBool));
    predicted_ = at::zeros({with_predicted ? most : 0}, device.dtype(at::kInt));
    loss_ = at::zeros({1}, device.dtype(at::kFloat));
    for (Slot& slot : slots_) {
      const auto pinned = [](const at::Tensor& x) {
        return at::empty(x.sizes(), x.options().device(at::kCPU).pinned_memory(true));
      };
      slot = {pinned(correct_), pinned(predicted_), pinned(loss_)};
    }
    c10::cuda::getCurrentCUDAStream(model.device().index()).synchronize();
  }

  void push(const Batch& batch, uint32_t index) override {
    if (eager_ || batch.size() != batch_size_) {
      collect();
      fallback_->push(batch, index);
      for (auto& scored : fallback_->drain()) done_.push_back(std::move(scored));
      return;
    }
    if (waiting_ == slots_.size()) collect();
    // Weights and stored matrices may have been written on the caller's stream.
    at::cuda::CUDAEvent written;
    written.record(c10::cuda::getCurrentCUDAStream(model_.device().index()));
    const c10::cuda::CUDAStreamGuard guard(stream_);
    written.block(stream_);
    const auto shape = batches_.shape_of(batch);
    batches_.bring(batch, index, 0.0f, shape);
    const auto work = [&] { run(shape); };
    try {
      graphs_.replay(shape, work, work);
    } catch (const ops::NeedsHostLengths& reason) {
      stream_.synchronize();
      log::info(std::string("evaluating op by op, without CUDA graphs: ") + reason.what());
      eager_ = true;
      return push(batch, index);
    }
    Slot& slot = slots_[waiting_++];
    slot.scored = static_cast<int64_t>(batch.scored.size());
    const auto bring_back = [&](const at::Tensor& to, const at::Tensor& from, int64_t n) {
      to.narrow(0, 0, n).copy_(from.narrow(0, 0, n), /*non_blocking=*/true);
    };
    bring_back(slot.correct, correct_, slot.scored);
    if (with_predicted_) bring_back(slot.predicted, predicted_, slot.scored);
    bring_back(slot.loss, loss_, 1);
  }

  std::vector<ScoredBatch> drain() override {
    collect();
    return std::exchange(done_, {});
  }

 private:
  struct Slot {
    at::Tensor correct, predicted, loss;  // pinned
    int64_t scored = 0;
  };

  std::vector<at::Tensor> on_device(const EvaluationDraws& draws) const {
    std::vector<at::Tensor> matrices;
    for (const auto& matrix : draws.stored()) matrices.push_back(matrix.to(model_.device()));
    return matrices;
  }

  void run(const ops::cuda::StepShape& shape) {
    const ops::LaneScope lanes(model_.device());
    const ModelInput input = batches_.unpack(shape);
    const at::Tensor logits = model_.forward(input, draws_, at::kBFloat16).logits;
    const auto result = ops::cross_entropy(logits, input.targets);
    const auto keep = [&](const at::Tensor& to, const at::Tensor& from) {
      to.narrow(0, 0, from.size(0)).copy_(from);
    };
    keep(correct_, result.correct);
    if (with_predicted_) keep(predicted_, at::argmax(logits, 1));
    loss_.copy_(result.loss);
  }

  void collect() {
    if (waiting_ == 0) return;
    stream_.synchronize();
    for (size_t i = 0; i < waiting_; ++i) {
      const Slot& slot = slots_[i];
      ScoredBatch scored;
      const bool* correct = slot.correct.const_data_ptr<bool>();
      scored.correct.assign(correct, correct + slot.scored);
      if (with_predicted_) {
        const int32_t* predicted = slot.predicted.const_data_ptr<int32_t>();
        scored.predicted.assign(predicted, predicted + slot.scored);
      }
      scored.loss = static_cast<double>(*slot.loss.const_data_ptr<float>());
      done_.push_back(std::move(scored));
    }
    waiting_ = 0;
  }

  const LanguageModel& model_;
  const int64_t batch_size_;
  const bool with_predicted_;
  std::unique_ptr<Scorer> fallback_;
  bool eager_ = false;
  CUDAStream stream_;
  DeviceBatches batches_;
  ShapeGraphs graphs_;
  DeviceEvaluationDraws draws_;
  at::Tensor correct_, predicted_, loss_;
  std::array<Slot, 32> slots_;
  size_t waiting_ = 0;  // slots in use, from the first on
  std::vector<ScoredBatch> done_;
};

}  // namespace

std::unique_ptr<Scorer> make_captured_scorer(const LanguageModel& model, const EvaluationDraws& draws,
                                             const DataSpec& data, int64_t batch_size, bool with_predicted,
                                             std::unique_ptr<Scorer> fallback) {
  return std::make_unique<CapturedScorer>(model, draws, data, batch_size, with_predicted,
                                          std::move(fallback));
}

}  // namespace hax
