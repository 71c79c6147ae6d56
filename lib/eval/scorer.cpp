#include "lib/eval/scorer.h"

#include <utility>

#include "lib/eval/captured_scorer.h"
#include "lib/ops/cross_entropy.h"

namespace hax {
namespace {

class EagerScorer : public Scorer {
 public:
  EagerScorer(const LanguageModel& model, EvaluationDraws& draws, at::ScalarType compute, bool with_predicted)
      : model_(model), draws_(draws), compute_(compute), with_predicted_(with_predicted) {}

  void push(const Batch& batch, uint32_t index) override {
    draws_.set_batch(index);
    const ModelInput input = to_device(batch, model_.device());
    const at::Tensor logits = model_.forward(input, draws_, compute_).logits;
    const auto result = ops::cross_entropy(logits, input.targets);
    ScoredBatch scored;
    const at::Tensor correct = result.correct.to(at::kCPU).contiguous();
    const bool* right = correct.const_data_ptr<bool>();
    scored.correct.assign(right, right + correct.numel());
    if (with_predicted_) {
      const at::Tensor tokens = at::argmax(logits, 1).to(at::kCPU, at::kInt).contiguous();
      const int32_t* token = tokens.const_data_ptr<int32_t>();
      scored.predicted.assign(token, token + tokens.numel());
    }
    scored.loss = result.loss.item<double>();
    done_.push_back(std::move(scored));
  }

  std::vector<ScoredBatch> drain() override { return std::exchange(done_, {}); }

 private:
  const LanguageModel& model_;
  EvaluationDraws& draws_;
  const at::ScalarType compute_;
  const bool with_predicted_;
  std::vector<ScoredBatch> done_;
};

}  // namespace

std::unique_ptr<Scorer> make_scorer(const LanguageModel& model, EvaluationDraws& draws,
                                    [[maybe_unused]] const DataSpec& data,
                                    [[maybe_unused]] int64_t batch_size, at::ScalarType compute,
                                    bool with_predicted) {
  auto eager = std::make_unique<EagerScorer>(model, draws, compute, with_predicted);
#ifdef HAX_CUDA
  if (model.device().is_cuda() && compute == at::kBFloat16)
    return make_captured_scorer(model, draws, data, batch_size, with_predicted, std::move(eager));
#endif
  return eager;
}

}  // namespace hax
