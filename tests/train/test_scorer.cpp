// Forwards captured as CUDA graphs against forwards op by op.
#include "data_gen/registry.h"
#include "data_gen/stream.h"
#include "lib/data/batches.h"
#include "lib/eval/evaluate.h"
#include "lib/model/precision.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax::test {
namespace {

// The first `size` examples of a stream.
class Finite : public ExampleSource {
 public:
  Finite(const ExampleSource& stream, int64_t size) : stream_(stream), size_(size) {}
  const DataSpec& spec() const override { return stream_.spec(); }
  std::string fingerprint() const override { return stream_.fingerprint(); }
  int64_t size() const override { return size_; }
  void append_example(int64_t index, Batch& batch) const override { stream_.append_example(index, batch); }

 private:
  const ExampleSource& stream_;
  int64_t size_;
};

}  // namespace

TEST_CASE("evaluation through CUDA graphs is that op by op, also after the weights have changed", "[gpu]") {
  for (const auto mode : {Statistics::causal, Statistics::paper}) {
    CAPTURE(static_cast<int>(mode));
    Config config;
    config.task.joint_recall = {3, 6, 2, 7, 16, 0};
    config.model.mode = mode;
    config.model.mixer = {MixerKind::mamba2};
    config.model.d_state = 16;
    config.model.sparse.patterns = {PatternKind::lsh, PatternKind::key_selection};
    config.model.sparse.k = 24;
    config.model.sparse.hash_bits = 4;
    const TaskStream stream(make_task(config.task), 5, ExampleSet(), "");
    const Finite examples(stream, 16 * 40 + 3);  // more batches than are kept waiting, and a short one
    LanguageModel model(config.model, examples.spec(), 1, at::kCUDA);
    EvaluationDraws draws(config, at::kCUDA);
    const auto scorer = make_scorer(model, draws, examples.spec(), 16, at::kBFloat16, true);
    for (int pass = 0; pass < 2; ++pass) {
      std::vector<int32_t> predicted;
      const Evaluation captured = evaluate(*scorer, examples, 0, 16, {}, &predicted);
      REQUIRE(captured.size() == examples.size());
      double loss = 0.0;
      int64_t scored = 0, same = 0;
      size_t example = 0;
      for (int64_t begin = 0; begin < examples.size(); begin += 16) {
        const at::NoGradGuard no_grad;
        const Batch batch = consecutive_batch(examples, begin, std::min(examples.size(), begin + 16));
        draws.set_batch(static_cast<uint32_t>(begin / 16));
        const ModelInput input = to_device(batch, at::kCUDA);
        const at::Tensor logits = model.forward(input, draws, at::kBFloat16).logits;
        const at::Tensor best = logits.argmax(1).to(at::kCPU, at::kInt);
        const auto n = static_cast<int64_t>(batch.scored.size());
        loss += at::cross_entropy_loss(logits.to(at::kFloat), input.targets).item<double>() *
                static_cast<double>(n);
        for (int64_t i = 0; i < n; ++i) same += best[i].item<int32_t>() == predicted.at(scored + i);
        for (int64_t b = 0; b < batch.size(); ++b, ++example) {
          int right = 0;
          for (int32_t s = batch.cu_scored[b]; s < batch.cu_scored[b + 1]; ++s)
            right += predicted.at(scored + s) == batch.targets[s];
          const auto asked = static_cast<float>(batch.cu_scored[b + 1] - batch.cu_scored[b]);
          CHECK(captured.example_accuracy.at(example) == static_cast<float>(right) / asked);
        }
        scored += n;
      }
      CHECK(captured.scored == scored);
      CHECK(captured.loss == Approx(loss / static_cast<double>(scored)).epsilon(1e-3));
      // Graphs pad to their capacity, so that matrix products may round otherwise: near ties fall otherwise.
      CHECK(static_cast<double>(same) >= 0.99 * static_cast<double>(scored));
      const at::NoGradGuard no_grad;
      model.parameters().flat().mul_(1.1);
    }
  }
}

}  // namespace hax::test
