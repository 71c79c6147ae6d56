// A graph is captured for each capacity (tokens, scored positions, both rounded up) when a batch first needs
// it, and replayed after one copy that brings the batch, the step and its learning rate. Everything that the
// step reads or writes has a fixed place. Graphs share one memory pool: they never run at the same time.
#include "lib/train/captured_steps.h"

#include <c10/cuda/CUDAGuard.h>

#include <array>
#include <functional>
#include <utility>

#include "lib/base/log.h"
#include "lib/model/device_batches.h"
#include "lib/model/device_draws.h"
#include "lib/model/shape_graphs.h"
#include "lib/ops/backward.h"
#include "lib/ops/cross_entropy.h"
#include "lib/ops/cuda/adamw.h"
#include "lib/ops/cuda/cross_entropy.h"
#include "lib/ops/cuda/step_io.h"
#include "lib/ops/cuda_tensors.h"
#include "lib/ops/lanes.h"

namespace hax {
namespace {

class CapturedSteps : public StepQueue {
 public:
  CapturedSteps(LanguageModel& model, TrainStep& step, const Config& config, const DataSpec& data,
                std::unique_ptr<StepQueue> fallback)
      : model_(model),
        step_(step),
        config_(config),
        fallback_(std::move(fallback)),
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, model.device().index())),
        inputs_(config.train.batch_size, data, stream_),
        graphs_(stream_) {
    const auto floats = at::TensorOptions().dtype(at::kFloat).device(model.device());
    ring_ = at::zeros({ops::cuda::kRingSteps, 4}, floats);
    stop_ = at::zeros({1}, floats.dtype(at::kInt));
    norm_scratch_ = at::zeros({ops::cuda::kNormBlocks}, floats);
    c10::cuda::getCurrentCUDAStream(model.device().index()).synchronize();
  }

  // What a step under way reads and writes must outlive it, also when an exception ends the run.
  ~CapturedSteps() override { cudaStreamSynchronize(stream_.stream()); }

  void push(const Batch& batch, int64_t step) override {
    if (eager_) return fallback_->push(batch, step);
    if (pending_.size() == static_cast<size_t>(ops::cuda::kRingSteps)) read_ring();
    if (failed()) return;
    if (replay(batch, step))
      pending_.push_back({step, static_cast<int64_t>(batch.tokens.size())});
    else
      fallback_->push(batch, step);  // on the caller's stream, as all further ones
  }

  bool failed() const override { return fallback_->failed() || (!done_.empty() && !done_.back().finite()); }

  std::vector<StepMetrics> drain() override {
    if (!eager_ || !pending_.empty()) read_ring();
    auto done = std::exchange(done_, {});
    for (auto& metrics : fallback_->drain()) done.push_back(metrics);
    return done;
  }

 private:
  struct Pending {
    int64_t step, tokens;
  };
  // False when the model turns out to have an op that cannot be captured.
  bool replay(const Batch& batch, int64_t step) {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    const auto shape = inputs_.shape_of(batch);
    inputs_.bring(batch, step, static_cast<float>(learning_rate(config_.train, step)), shape);
    const auto work = [&] { run(shape); };
    try {
      graphs_.replay(
          shape, [&] { without_update(work); }, work);
    } catch (const ops::NeedsHostLengths& reason) {
      stream_.synchronize();
      log::info(std::string("training op by op, without CUDA graphs: ") + reason.what());
      eager_ = true;
    }
    return !eager_;
  }

  void without_update(const std::function<void()>& work) {
    const at::Tensor stopped = stop_.clone();
    stop_.fill_(1);
    try {
      work();
    } catch (...) {
      stop_.copy_(stopped);
      throw;
    }
    stop_.copy_(stopped);
  }

  // The step itself, as it is captured.
  void run(const ops::cuda::StepShape& shape) {
    using namespace ops::cuda;
    const cudaStream_t stream = stream_.stream();
    const ModelInput input = inputs_.unpack(shape);
    ops::LaneScope lanes(model_.device());
    const auto compute = compute_dtype(config_.train.precision);
    ParameterSet& parameters = model_.parameters();
    CastValues weights(parameters, compute);
    const DeviceTrainingDraws draws(static_cast<uint64_t>(config_.train.seed),
                                    config_.model.mode == Statistics::paper, noise_bits(config_),
                                    inputs_.step());
    const ModelOutput output = model_.forward(input, draws, compute);
    const auto result = training_loss(config_, output.logits, input.targets);
    const at::Tensor accuracy = at::empty({1}, inputs_.lr().options());
    {
      ops::Lane lane(ops::kPatientLane, {result.correct, accuracy});
      example_accuracy(shape.batch, result.correct.const_data_ptr<bool>(),
                       inputs_.cu_scored().const_data_ptr<int64_t>(), accuracy.mutable_data_ptr<float>(),
                       ops::cuda_stream());
    }
    // Of the sum of both losses.
    std::vector<at::Tensor> losses{result.loss}, slopes{slope(0, result.loss, 1.0)};
    if (output.aux_loss.defined()) {
      losses.push_back(output.aux_loss);
      slopes.push_back(slope(1, output.aux_loss, config_.model.sparse.ranking_weight));
    }
    ops::backward(losses, slopes);
    lanes.join_all();

    const at::NoGradGuard no_grad;
    weights.collect();
    const at::Tensor norm = at::empty({1}, inputs_.lr().options());
    const at::Tensor grad = parameters.flat_grad();
    ops::with_element_type(grad, [&](auto element) {
      global_norm(grad.numel(), ops::device_data<decltype(element)>(grad), norm.mutable_data_ptr<float>(),
                  norm_scratch_.mutable_data_ptr<float>(), stream);
    });
    const at::Tensor loss = result.loss.detach(),
                     aux = output.aux_loss.defined() ? output.aux_loss.detach() : at::Tensor();
    record_step({loss.const_data_ptr<float>(), aux.defined() ? aux.const_data_ptr<float>() : nullptr,
                 accuracy.const_data_ptr<float>(), norm.const_data_ptr<float>()},
                inputs_.step().const_data_ptr<int64_t>(), ring_.mutable_data_ptr<float>(),
                stop_.mutable_data_ptr<int32_t>(), stream);
    update(grad, norm);
  }

  // The gradient that the backward pass begins with at a loss: written once, before any graph is captured.
  at::Tensor slope(size_t i, const at::Tensor& loss, double value) {
    if (!slopes_[i].defined()) slopes_[i] = at::full_like(loss.detach(), value);
    return slopes_[i];
  }

  // AdamW with what the device holds of the step.
  void update(const at::Tensor& grad, const at::Tensor& norm) {
    const TrainConfig& t = config_.train;
    const OptimizerState& state = step_.optimiser().state();
    const at::Tensor weight = model_.parameters().flat();
    ops::with_element_type(weight, [&](auto element) {
      using T = decltype(element);
      ops::cuda::adamw(weight.numel(), {t.beta1, t.beta2, t.eps, t.weight_decay, t.grad_clip},
                       inputs_.lr().const_data_ptr<float>(), inputs_.step().const_data_ptr<int64_t>(),
                       norm.const_data_ptr<float>(), stop_.const_data_ptr<int32_t>(),
                       ops::device_data<T>(grad), ops::mutable_device_data<T>(weight),
                       ops::mutable_device_data<T>(state.exp_avg),
                       ops::mutable_device_data<T>(state.exp_avg_sq), stream_.stream());
    });
  }

  void read_ring() {
    stream_.synchronize();
    if (pending_.empty()) return;
    const at::Tensor ring = ring_.to(at::kCPU);
    const float* numbers = ring.const_data_ptr<float>();
    for (const Pending& p : pending_) {
      const float* n = numbers + p.step % ops::cuda::kRingSteps * 4;
      if (!done_.empty() && !done_.back().finite()) break;
      done_.push_back({n[0], n[1], n[2], n[3], p.tokens});
    }
    pending_.clear();
  }

  LanguageModel& model_;
  TrainStep& step_;
  const Config config_;
  std::unique_ptr<StepQueue> fallback_;
  bool eager_ = false;
  c10::cuda::CUDAStream stream_;
  DeviceBatches inputs_;
  ShapeGraphs graphs_;
  at::Tensor ring_, stop_, norm_scratch_;
  std::array<at::Tensor, 2> slopes_;
  std::vector<Pending> pending_;
  std::vector<StepMetrics> done_;
};

}  // namespace

std::unique_ptr<StepQueue> make_captured_steps(LanguageModel& model, TrainStep& step, const Config& config,
                                               const DataSpec& data, std::unique_ptr<StepQueue> fallback) {
  return std::make_unique<CapturedSteps>(model, step, config, data, std::move(fallback));
}

}  // namespace hax
