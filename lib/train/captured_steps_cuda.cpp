// A graph is captured for each capacity (tokens, scored positions, both rounded up) when a batch first needs
// it, and replayed after one copy that brings the batch, the step and its learning rate. Everything that the
// step reads or writes has a fixed place. Graphs share one memory pool: they never run at the same time.
#include "lib/train/captured_steps.h"

#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>

#include "lib/base/log.h"
#include "lib/base/random.h"
#include "lib/ops/cross_entropy.h"
#include "lib/ops/cuda/adamw.h"
#include "lib/ops/cuda/cross_entropy.h"
#include "lib/ops/cuda/hash_matrix.h"
#include "lib/ops/cuda/key_selection.h"
#include "lib/ops/cuda/step_io.h"
#include "lib/ops/cuda_tensors.h"
#include "lib/ops/lanes.h"

namespace hax {
namespace {

constexpr int64_t kTokensTogether = 2048, kScoredTogether = 1024;  // capacities are multiples
constexpr size_t kStaging = 4;                                     // batches that may be on their way

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// PhiloxDraws of training, drawn on the device for the step that stands there.
class DeviceDraws : public Draws {
 public:
  DeviceDraws(const Config& config, at::Tensor step)
      : seed_(static_cast<uint64_t>(config.train.seed)),
        fill_with_pad_(config.model.mode == Statistics::paper),
        noise_bits_(noise_bits(config)),
        step_(std::move(step)) {}
  bool training() const override { return true; }
  at::Tensor hash_matrix(int64_t layer, int64_t d, int64_t h) const override {
    const at::Tensor matrix = at::empty({d, h}, step_.options().dtype(at::kFloat));
    ops::cuda::hash_matrix(d * h, seed_, word(Purpose::hash_matrix, layer), step_.const_data_ptr<int64_t>(),
                           matrix.mutable_data_ptr<float>(), ops::cuda_stream());
    return matrix;
  }
  at::Tensor sampled_positions(int64_t layer, int64_t k, const ops::PackedLayout& layout) const override {
    if (k > ops::cuda::kTopkMost)
      throw ops::NeedsHostLengths("a ranking sample of " + std::to_string(k) + " positions");
    const at::Tensor sampled = at::empty({layout.batch(), k}, step_.options());
    ops::cuda::sample_positions(
        ops::cuda_layout(layout), k,
        {seed_, word(Purpose::ranking_sample, layer), step_.const_data_ptr<int64_t>(), noise_bits_},
        fill_with_pad_, layout.padded_length, sampled.mutable_data_ptr<int64_t>(), ops::cuda_stream());
    return sampled;
  }

 private:
  static uint32_t word(Purpose purpose, int64_t layer) {
    return static_cast<uint32_t>(purpose) | static_cast<uint32_t>(layer) << 8;
  }
  uint64_t seed_;
  bool fill_with_pad_;
  int noise_bits_;
  at::Tensor step_;
};

class CapturedSteps : public StepQueue {
 public:
  CapturedSteps(LanguageModel& model, TrainStep& step, const Config& config, const DataSpec& data,
                std::unique_ptr<StepQueue> fallback)
      : model_(model),
        step_(step),
        config_(config),
        data_(data),
        fallback_(std::move(fallback)),
        stream_(at::cuda::getStreamFromPool(/*isHighPriority=*/false, model.device().index())),
        pool_(at::cuda::graph_pool_handle()) {
    const int64_t B = config.train.batch_size, rows = round_up(B * data.input_length(), kTokensTogether);
    const auto words = [&](int64_t n) { return at::zeros({n}, longs()); };
    step_number_ = words(1);
    lr_ = at::zeros({1}, longs().dtype(at::kFloat));
    cu_seqlens_ = words(B + 1);
    cu_scored_ = words(B + 1);
    for (at::Tensor* column : {&tokens_, &seq_id_, &position_, &scored_, &targets_}) *column = words(rows);
    const int64_t most = ops::cuda::StepShape{B, rows, rows}.words();
    words_ = at::zeros({most}, longs().dtype(at::kInt));
    for (auto& staged : staging_)
      staged.words = at::zeros({most}, at::TensorOptions().dtype(at::kInt).pinned_memory(true));
    ring_ = at::zeros({ops::cuda::kRingSteps, 4}, longs().dtype(at::kFloat));
    stop_ = at::zeros({1}, longs().dtype(at::kInt));
    norm_scratch_ = at::zeros({ops::cuda::kNormBlocks}, longs().dtype(at::kFloat));
    at::cuda::getCurrentCUDAStream().synchronize();
  }

  void push(const Batch& batch, int64_t step) override {
    if (eager_) return fallback_->push(batch, step);
    if (pending_.size() == static_cast<size_t>(ops::cuda::kRingSteps)) read_ring();
    if (failed()) return;
    const c10::cuda::CUDAStreamGuard guard(stream_);
    const auto shape = shape_of(batch);
    bring(batch, step, shape);
    auto& graph = graphs_[{shape.rows, shape.scored_rows}];
    if (!graph) {
      try {
        graph = capture(shape);
      } catch (const ops::NeedsHostLengths& reason) {
        stream_.synchronize();
        log::info(std::string("training op by op, without CUDA graphs: ") + reason.what());
        eager_ = true;
        return fallback_->push(batch, step);
      }
    }
    graph->replay();
    pending_.push_back({step, static_cast<int64_t>(batch.tokens.size())});
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
  struct Staged {
    at::Tensor words;  // pinned
    at::cuda::CUDAEvent copied;
    bool in_use = false;
  };

  at::TensorOptions longs() const { return at::TensorOptions().dtype(at::kLong).device(model_.device()); }

  ops::cuda::StepShape shape_of(const Batch& batch) const {
    const auto most = tokens_.size(0);
    const auto capacity = [&](size_t n, int64_t multiple) {
      return std::min(most, round_up(std::max<int64_t>(static_cast<int64_t>(n), 1), multiple));
    };
    return {batch.size(), capacity(batch.tokens.size(), kTokensTogether),
            capacity(batch.scored.size(), kScoredTogether)};
  }

  // Copies the step's input to the device; the host does not wait unless kStaging batches are on their way.
  void bring(const Batch& batch, int64_t step, const ops::cuda::StepShape& shape) {
    Staged& staged = staging_[static_cast<size_t>(step) % kStaging];
    if (staged.in_use) staged.copied.synchronize();
    int32_t* word = staged.words.mutable_data_ptr<int32_t>();
    const auto lr = static_cast<float>(learning_rate(config_.train, step));
    word[0] = static_cast<int32_t>(step & 0xffffffff);
    word[1] = static_cast<int32_t>(step >> 32);
    std::memcpy(word + 2, &lr, sizeof lr);
    word[3] = 0;
    int32_t* to = word + 4;
    const auto put = [&](const std::vector<int32_t>& values, int64_t room) {
      std::copy(values.begin(), values.end(), to);
      to += room;
    };
    put(batch.cu_seqlens, shape.batch + 1);
    put(batch.cu_scored, shape.batch + 1);
    put(batch.tokens, shape.rows);
    put(batch.scored, shape.scored_rows);
    put(batch.targets, shape.scored_rows);
    words_.narrow(0, 0, shape.words()).copy_(staged.words.narrow(0, 0, shape.words()), /*non_blocking=*/true);
    staged.copied.record(stream_);
    staged.in_use = true;
  }

  std::unique_ptr<at::cuda::CUDAGraph> capture(const ops::cuda::StepShape& shape) {
    // Libraries set themselves up in a first run, whose update is held back.
    const at::Tensor stopped = stop_.clone();
    stop_.fill_(1);
    run(shape);
    stop_.copy_(stopped);
    stream_.synchronize();
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    graph->capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
    try {
      run(shape);
    } catch (...) {
      graph->capture_end();
      throw;
    }
    graph->capture_end();
    return graph;
  }

  // The step itself, as it is captured.
  void run(const ops::cuda::StepShape& shape) {
    using namespace ops::cuda;
    const cudaStream_t stream = stream_.stream();
    const auto column = [](const at::Tensor& x, int64_t n) { return x.narrow(0, 0, n); };
    const auto data = [](const at::Tensor& x) { return x.mutable_data_ptr<int64_t>(); };
    unpack_step(shape, words_.const_data_ptr<int32_t>(),
                {data(step_number_), lr_.mutable_data_ptr<float>(), data(cu_seqlens_), data(cu_scored_),
                 data(tokens_), data(seq_id_), data(position_), data(scored_), data(targets_)},
                stream);
    ModelInput input;
    input.tokens = column(tokens_, shape.rows);
    input.scored = column(scored_, shape.scored_rows);
    input.targets = column(targets_, shape.scored_rows);
    input.layout = ops::device_layout(cu_seqlens_, column(seq_id_, shape.rows), column(position_, shape.rows),
                                      std::min(data_.input_length(), shape.rows), data_.input_length());

    const ops::LaneScope lanes(model_.device());
    const auto compute = compute_dtype(config_.train.precision);
    ParameterSet& parameters = model_.parameters();
    std::optional<CastValues> weights;
    if (parameters.flat().scalar_type() != compute)
      weights.emplace(parameters, compute);
    else
      parameters.zero_grad();
    const ModelOutput output = model_.forward(input, DeviceDraws(config_, step_number_), compute);
    const auto result = training_loss(config_, output.logits, input.targets);
    at::Tensor total = result.loss;
    if (output.aux_loss.defined()) total = total + config_.model.sparse.ranking_weight * output.aux_loss;
    total.backward();

    const at::NoGradGuard no_grad;
    if (weights) weights->collect();
    const at::Tensor accuracy = at::empty({1}, lr_.options()), norm = at::empty({1}, lr_.options());
    example_accuracy(shape.batch, result.correct.const_data_ptr<bool>(), cu_scored_.const_data_ptr<int64_t>(),
                     accuracy.mutable_data_ptr<float>(), stream);
    const at::Tensor grad = parameters.flat_grad();
    ops::with_element_type(grad, [&](auto element) {
      global_norm(grad.numel(), ops::device_data<decltype(element)>(grad), norm.mutable_data_ptr<float>(),
                  norm_scratch_.mutable_data_ptr<float>(), stream);
    });
    const at::Tensor loss = result.loss.detach(),
                     aux = output.aux_loss.defined() ? output.aux_loss.detach() : at::Tensor();
    record_step({loss.const_data_ptr<float>(), aux.defined() ? aux.const_data_ptr<float>() : nullptr,
                 accuracy.const_data_ptr<float>(), norm.const_data_ptr<float>()},
                step_number_.const_data_ptr<int64_t>(), ring_.mutable_data_ptr<float>(),
                stop_.mutable_data_ptr<int32_t>(), stream);
    update(grad, norm);
  }

  // AdamW with what the device holds of the step.
  void update(const at::Tensor& grad, const at::Tensor& norm) {
    const TrainConfig& t = config_.train;
    const OptimizerState& state = step_.optimiser().state();
    const at::Tensor weight = model_.parameters().flat();
    ops::with_element_type(weight, [&](auto element) {
      using T = decltype(element);
      ops::cuda::adamw(weight.numel(),
                       {static_cast<float>(t.beta1), static_cast<float>(t.beta2), static_cast<float>(t.eps),
                        static_cast<float>(t.weight_decay), static_cast<float>(t.grad_clip)},
                       lr_.const_data_ptr<float>(), step_number_.const_data_ptr<int64_t>(),
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
  const DataSpec data_;
  std::unique_ptr<StepQueue> fallback_;
  bool eager_ = false;
  at::cuda::CUDAStream stream_;
  at::cuda::MempoolId_t pool_;
  std::map<std::pair<int64_t, int64_t>, std::unique_ptr<at::cuda::CUDAGraph>> graphs_;
  std::array<Staged, kStaging> staging_;
  at::Tensor words_, step_number_, lr_, cu_seqlens_, cu_scored_, tokens_, seq_id_, position_, scored_,
      targets_;
  at::Tensor ring_, stop_, norm_scratch_;
  std::vector<Pending> pending_;
  std::vector<StepMetrics> done_;
};

}  // namespace

std::unique_ptr<StepQueue> make_captured_steps(LanguageModel& model, TrainStep& step, const Config& config,
                                               const DataSpec& data, std::unique_ptr<StepQueue> fallback) {
  return std::make_unique<CapturedSteps>(model, step, config, data, std::move(fallback));
}

}  // namespace hax
