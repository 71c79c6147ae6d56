// What a fault of the device becomes, by injected faults and, on a GPU, by real ones.
#ifdef HAX_CUDA
#include <c10/cuda/CUDAStream.h>

#include "lib/ops/cuda/hash_matrix.h"
#endif

#include "data_gen/registry.h"
#include "data_gen/stream.h"
#include "lib/base/error.h"
#include "lib/data/batches.h"
#include "lib/train/guarded_steps.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace hax::test {
namespace {

// Does what the test says.
class Steps : public StepQueue {
 public:
  explicit Steps(std::function<void(int64_t)> push) : push_(std::move(push)) {}
  void push(const Batch&, int64_t step) override { push_(step); }
  bool failed() const override { return false; }
  std::vector<StepMetrics> drain() override {
    push_(-1);
    return {};
  }

 private:
  std::function<void(int64_t)> push_;
};

// `sequences` examples of n tokens each.
Batch batch_of(int64_t sequences, int64_t n) {
  Batch batch;
  batch.cu_seqlens = {0};
  batch.cu_scored = {0};
  batch.padded_length = n;
  for (int64_t b = 0; b < sequences; ++b) {
    batch.tokens.insert(batch.tokens.end(), static_cast<size_t>(n), 1);
    batch.cu_seqlens.push_back(static_cast<int32_t>((b + 1) * n));
    batch.scored.push_back(static_cast<int32_t>(b * n));
    batch.targets.push_back(1);
    batch.cu_scored.push_back(static_cast<int32_t>(b + 1));
  }
  return batch;
}

template <class Fault>
std::string pushed(Fault fault) {
  const auto queue = guard_steps(std::make_unique<Steps>([&](int64_t) { fault(); }), at::kCPU);
  return message_of<RuntimeError>([&] { queue->push(batch_of(3, 5), 7); });
}

}  // namespace

TEST_CASE("faults of a step name the step, the batch and the cause") {
  const std::string batch = "a batch of 3 sequences, 15 tokens, the longest of 5";
  const auto out_of_memory = pushed([] {
    TORCH_CHECK_WITH(OutOfMemoryError, false,
                     "CUDA out of memory. Tried to allocate 12.50 GiB. GPU 0 has ...");
  });
  CHECK(contains(out_of_memory, "update 8: out of memory in " + batch));
  CHECK(contains(out_of_memory, "the tensor that did not fit has 12.50 GiB;"));
  CHECK(contains(out_of_memory, "lower train.batch_size"));
  const auto on_the_host = pushed([] {
    TORCH_CHECK(false, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes. Error");
  });
  CHECK(contains(on_the_host, "out of memory in " + batch));
  CHECK(contains(on_the_host, "has 99 bytes;"));
  CHECK(contains(pushed([] { throw std::bad_alloc(); }), "out of memory in " + batch));
  const auto lost = pushed([] { TORCH_CHECK(false, "CUDA error: device lost\nSearch for ..."); });
  CHECK(contains(lost, "update 8: cpu failed in " + batch + ": CUDA error: device lost"));
  CHECK_FALSE(contains(lost, "Search for"));
  const auto refused =
      pushed([] { throw std::runtime_error("CUDA kernel ssd (rows 15): invalid configuration argument"); });
  CHECK(contains(refused, "cpu failed in " + batch + ": CUDA kernel ssd (rows 15): invalid configuration"));
  // Errors of ours and faulty calls go through as they are.
  const auto queue = guard_steps(std::make_unique<Steps>([](int64_t) { throw DataError("x"); }), at::kCPU);
  CHECK_THROWS_AS(queue->push(batch_of(1, 1), 0), DataError);
  const auto wrong =
      guard_steps(std::make_unique<Steps>([](int64_t) { throw std::invalid_argument("x"); }), at::kCPU);
  CHECK_THROWS_AS(wrong->push(batch_of(1, 1), 0), std::invalid_argument);
}

TEST_CASE("a fault that shows only when the host waits is told with the last batch") {
  const auto queue =
      guard_steps(std::make_unique<Steps>([](int64_t step) {
                    TORCH_CHECK(step >= 0, "CUDA error: an illegal memory access was encountered");
                  }),
                  at::kCPU);
  queue->push(batch_of(2, 4), 11);
  const std::string message = message_of<RuntimeError>([&] { queue->drain(); });
  CHECK(contains(message, "update 12: cpu failed in a batch of 2 sequences, 8 tokens"));
  CHECK(contains(message, "illegal memory access"));
}

TEST_CASE("what would fit follows from the measured bytes a token") {
  const int64_t gib = int64_t{1} << 30;
  const DeviceMemory before = {80 * gib, 10 * gib, 11 * gib}, now = {80 * gib, 60 * gib, 45 * gib};
  const BatchSize batch = {100, 2000, 25};
  // 35 GiB for 1000 tokens: 2000 fit into 70 GiB.
  const std::string known = memory_fault(batch, before, now, 1000, "Tried to allocate 2.00 GiB (GPU 0; ...)");
  CHECK(contains(known, "the GPU has 80.00 GiB, weights and optimiser take 10.00 GiB"));
  CHECK(contains(known, "about 2000 tokens fit, 100 sequences like these"));
  const std::string first = memory_fault(batch, before, now, 0, "");
  CHECK(contains(first, "fewer than 4000 tokens fit, 200 sequences like these"));
  CHECK_FALSE(contains(memory_fault(batch, std::nullopt, std::nullopt, 0, ""), "GPU"));
}

TEST_CASE("a batch that no GPU holds is refused with what would fit, and training goes on", "[gpu][fault]") {
  Config config;
  config.task.joint_recall = {1, 2, 1, 2, 16, 0};
  config.model.d_model = 4096;
  config.model.d_state = 16;
  config.model.n_heads = 64;
  config.model.layers = 1;
  config.train.batch_size = 8;
  config.train.warmup_steps = 0;
  const TaskStream source(make_task(config.task), config.data.seed, ExampleSet(), "");
  const BatchSequence batches(source, config.train.seed, config.train.batch_size);
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    config.train.precision = precision;
    LanguageModel model(config.model, source.spec(), config.train.seed, at::kCUDA);
    TrainStep step(model, config);
    // Op by op: batches of captured steps have their places from the start.
    Config eager = config;
    eager.train.precision = Precision::fp32;
    const auto queue = make_step_queue(model, step, eager, source.spec());
    queue->push(batches.batch(0), 0);
    REQUIRE(queue->drain().size() == 1);
    const at::Tensor weights = model.parameters().flat().clone();
    const std::string message =
        message_of<RuntimeError>([&] { queue->push(batch_of(int64_t{1} << 20, 20), 1); });
    WARN(message);
    CHECK(contains(message, "update 2: out of memory in a batch of 1048576 sequences, 20971520 tokens"));
    CHECK(contains(message, "the tensor that did not fit has "));
    CHECK(contains(message, " tokens fit, "));
    CHECK(at::equal(model.parameters().flat(), weights));
    queue->push(batches.batch(1), 1);
    CHECK(queue->drain().at(0).finite());
  }
}

#ifdef HAX_CUDA
TEST_CASE("a launch that the device refuses names its kernel and shape, and leaves the device usable",
          "[gpu][fault]") {
  const int64_t n = int64_t{1} << 41;  // more blocks than a grid has; nothing is read
  const std::string message = pushed(
      [&] { ops::cuda::hash_matrix(n, 1, 2, nullptr, nullptr, c10::cuda::getCurrentCUDAStream().stream()); });
  CAPTURE(message);
  // Drivers word the cause differently.
  CHECK(contains(message, "CUDA kernel hash_matrix (elements 2199023255552): invalid "));
  CHECK(at::ones({3}, at::TensorOptions().device(at::kCUDA)).sum().item<float>() == 3.0f);
}
#endif

}  // namespace hax::test
