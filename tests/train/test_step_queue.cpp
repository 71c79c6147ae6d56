// Steps captured as CUDA graphs against steps run op by op, and against themselves.
#include "data_gen/registry.h"
#include "data_gen/stream.h"
#include "lib/data/prefetch.h"
#include "lib/train/step_queue.h"
#include "tests/catch.h"
#include "tests/ops/tensors.h"

namespace hax::test {
namespace {

Config small_config(MixerKind mixer, std::vector<PatternKind> patterns) {
  Config config;
  config.task.joint_recall = {3, 6, 2, 7, 16, 0};
  config.model.mixer = {mixer};
  config.model.d_state = 16;
  config.model.sparse.patterns = std::move(patterns);
  config.model.sparse.k = 24;
  config.model.sparse.hash_bits = 4;
  config.train.precision = Precision::bf16;
  config.train.batch_size = 24;
  config.train.warmup_steps = 2;
  config.train.steps = 100;
  return config;
}

struct Trained {
  std::vector<StepMetrics> metrics;
  at::Tensor weights;
};

Trained run(const Config& config, int64_t steps, bool captured) {
  const TaskStream source(make_task(config.task), config.data.seed, ExampleSet(), "");
  const BatchSequence batches(source, config.train.seed, config.train.batch_size);
  LanguageModel model(config.model, source.spec(), config.train.seed, at::kCUDA,
                      weight_dtype(config.train.precision));
  TrainStep step(model, config);
  Trained out;
  if (captured) {
    const auto queue = make_step_queue(model, step, config, source.spec());
    BatchPrefetch ahead(batches, 0, 3);
    for (int64_t s = 0; s < steps; ++s) queue->push(ahead.next(), s);
    out.metrics = queue->drain();
  } else {
    for (int64_t s = 0; s < steps; ++s)
      out.metrics.push_back(step.run(batches.batch(s), s, training_draws(config, s)));
  }
  out.weights = model.parameters().flat().to(at::kCPU);
  return out;
}

}  // namespace

TEST_CASE("captured steps are the steps run op by op, and the same bytes every time", "[gpu]") {
  const std::vector<std::vector<PatternKind>> branches = {{},
                                                          {PatternKind::sliding_window, PatternKind::dilated},
                                                          {PatternKind::lsh},
                                                          {PatternKind::lsh, PatternKind::key_selection}};
  for (const auto& patterns : branches) {
    CAPTURE(patterns.size());
    const Config config = small_config(MixerKind::mamba2, patterns);
    const Trained graph = run(config, 12, true), again = run(config, 12, true),
                  eager = run(config, 12, false);
    REQUIRE(graph.metrics.size() == 12);
    CHECK(bitwise_equal(graph.weights, again.weights));
    for (size_t s = 0; s < 12; ++s) {
      CAPTURE(s);
      const StepMetrics &a = graph.metrics[s], &b = eager.metrics[s];
      CHECK(a.tokens == b.tokens);
      CHECK(a.loss == Approx(b.loss).epsilon(s == 0 ? 1e-4 : 1e-2));
      CHECK(a.aux_loss == Approx(b.aux_loss).epsilon(s == 0 ? 1e-3 : 2e-2));
      CHECK(a.grad_norm == Approx(b.grad_norm).epsilon(s == 0 ? 5e-3 : 0.1));
      CHECK(std::abs(a.accuracy - b.accuracy) < 0.03);
      CHECK(a.loss == again.metrics[s].loss);
    }
  }
}

// The official arithmetic: whole-sequence statistics, uniform rows, samples that padded positions fill up.
TEST_CASE("captured steps of the paper's statistics are the steps run op by op", "[gpu]") {
  for (Precision precision : {Precision::fp32, Precision::bf16, Precision::pure_bf16}) {
    for (MixerKind mixer : {MixerKind::mamba2, MixerKind::mamba}) {
      for (const auto& patterns :
           std::vector<std::vector<PatternKind>>{{},
                                                 {PatternKind::lsh},
                                                 {PatternKind::dilated},
                                                 {PatternKind::lsh, PatternKind::key_selection}}) {
        CAPTURE(static_cast<int>(precision), static_cast<int>(mixer), patterns.size());
        Config config = small_config(mixer, patterns);
        config.model.mode = Statistics::paper;
        config.train.precision = precision;
        const Trained graph = run(config, 12, true), again = run(config, 12, true),
                      eager = run(config, 12, false);
        REQUIRE(graph.metrics.size() == 12);
        CHECK(bitwise_equal(graph.weights, again.weights));
        CHECK(graph.weights.scalar_type() == weight_dtype(precision));
        CHECK(relative_error(graph.weights, eager.weights) <= 0.05);
        for (size_t s = 0; s < 12; ++s) {
          CAPTURE(s);
          const StepMetrics &a = graph.metrics[s], &b = eager.metrics[s];
          CHECK(a.tokens == b.tokens);
          CHECK(a.loss == Approx(b.loss).epsilon(s == 0 ? 1e-4 : 1.5e-2));
          CHECK(a.aux_loss == Approx(b.aux_loss).epsilon(s == 0 ? 1e-3 : 2e-2));
          CHECK(a.grad_norm == Approx(b.grad_norm).epsilon(s == 0 ? 5e-3 : 0.1));
          CHECK(std::abs(a.accuracy - b.accuracy) < 0.03);
        }
      }
    }
  }
}

TEST_CASE("captured steps in fp32 are the steps run op by op, closely", "[gpu]") {
  for (const auto& patterns :
       std::vector<std::vector<PatternKind>>{{},
                                             {PatternKind::sliding_window, PatternKind::dilated},
                                             {PatternKind::lsh, PatternKind::key_selection}}) {
    CAPTURE(patterns.size());
    Config config = small_config(MixerKind::mamba2, patterns);
    config.train.precision = Precision::fp32;
    const Trained graph = run(config, 6, true), eager = run(config, 6, false);
    REQUIRE(graph.metrics.size() == 6);
    for (size_t s = 0; s < 6; ++s) {
      CAPTURE(s);
      const StepMetrics &a = graph.metrics[s], &b = eager.metrics[s];
      CHECK(a.loss == Approx(b.loss).epsilon(s == 0 ? 1e-5 : 1e-3));
      CHECK(a.aux_loss == Approx(b.aux_loss).epsilon(s == 0 ? 1e-5 : 1e-3));
      CHECK(a.grad_norm == Approx(b.grad_norm).epsilon(s == 0 ? 1e-4 : 1e-2));
    }
  }
}

TEST_CASE("a step that is not finite ends a queue of captured steps, and updates nothing", "[gpu]") {
  Config config = small_config(MixerKind::mamba2, {});
  config.train.warmup_steps = 0;
  config.train.lr = 1e30;
  const Trained graph = run(config, 8, true);
  REQUIRE(!graph.metrics.empty());
  CHECK(graph.metrics.size() < 8);
  CHECK_FALSE(graph.metrics.back().finite());
  for (size_t s = 0; s + 1 < graph.metrics.size(); ++s) CHECK(graph.metrics[s].finite());
  config.train.steps = static_cast<int64_t>(graph.metrics.size()) - 1;
  CHECK(bitwise_equal(run(config, config.train.steps, true).weights, graph.weights));
}

}  // namespace hax::test
