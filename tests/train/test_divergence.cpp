// Steps that are not finite: what the run says of them, and how it goes on or ends.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/base/files.h"
#include "lib/data/batches.h"
#include "lib/model/device.h"
#include "lib/train/collect_runs.h"
#include "lib/train/divergence.h"
#include "lib/train/kept_checkpoints.h"
#include "lib/train/train_step.h"
#include "tests/catch.h"
#include "tests/stderr.h"
#include "tests/support.h"
#include "tests/train/toy_run.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// The largest fp32 norm whose square does not overflow.
constexpr double kLargestNorm = 1.8446743e19;

// Stopped at a step unless that is -1; of a stream unless the number of examples is given.
TrainOutcome run_until(const std::string& path, const Config& config, int64_t stop = -1,
                       int64_t examples = -1) {
  const ToySource training(1, examples), validation(2, 64);
  TrainHooks hooks;
  hooks.should_stop = [&](int64_t step) { return stop >= 0 && step == stop; };
  return train(RunFolder::create_or_resume(path, config), training, validation,
               choose_device(config.train.device, "train.device"), hooks);
}

Json json_of(const std::string& path) { return Json::parse(read_file(path)); }

std::vector<Record> rewinds_of(const std::string& run) {
  auto records = RecordLog(run + "/metrics.jsonl").records();
  std::erase_if(records, [](const Record& record) { return record.json["kind"] != "rewind"; });
  return records;
}

// A run whose gradient overflows at one batch of the first 20, the largest of the ranking loss, and with luck
// at none after it. Adam's updates do not depend on the gradient's scale, and the rate keeps the weights in
// place.
struct Overflowing {
  Config config = toy_config();
  int64_t first = 0;  // the update that overflows, from 0

  Overflowing() {
    config.train.steps = 20;
    config.train.lr = 1e-7;
    config.train.warmup_steps = 0;
    config.train.validate_every = 4;
    config.train.checkpoint_every = 3;
    config.train.on_divergence = OnDivergence::rewind;
    config.train.max_rewinds = 20;
    config.model.sparse.ranking_weight = 1e9;  // drowns the other loss
    const ToySource source(1, -1);
    const BatchSequence batches(source, config.train.seed, config.train.batch_size);
    LanguageModel model(config.model, source.spec(), config.train.seed, at::kCPU);
    TrainStep step(model, config);
    std::vector<double> norms;
    for (int64_t s = 0; s < config.train.steps; ++s)
      norms.push_back(step.gradients(batches.batch(s), training_draws(config, s)).metrics.grad_norm);
    first = std::max_element(norms.begin(), norms.end()) - norms.begin();
    const double largest = norms[first];
    norms[first] = 0.0;
    const double second = *std::max_element(norms.begin(), norms.end());
    config.model.sparse.ranking_weight *= kLargestNorm / std::sqrt(largest * second);
  }
};

}  // namespace

TEST_CASE("a run that diverges says where, on what, and which numbers were not finite") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  Config config = toy_config();
  run_until(path, config, 7, 500);
  const std::string last = path + "/checkpoints/last.safetensors";
  auto loaded = read_checkpoint(last, at::kCPU);
  {
    const at::NoGradGuard no_grad;
    loaded.model->parameters().find("norm_f.weight")->select(0, 3).fill_(std::nanf(""));
  }
  write_checkpoint(last, *loaded.model, loaded.info, &loaded.optimizer);
  const std::string before = read_file(last);

  const auto outcome = run_until(path, config, -1, 500);
  CHECK(outcome.end == TrainEnd::diverged);
  CHECK(outcome.result.step == 7);
  CHECK(contains(outcome.result.message, "at update 8: loss nan, "));
  CHECK(contains(outcome.result.message, "divergence-1.json"));
  CHECK(read_file(last) == before);

  const Json report = json_of(path + "/divergence-1.json");
  CHECK(report["update"] == 8);
  CHECK(report["batch"] == 7);
  const ToySource source(1, 500);
  CHECK(report["examples"].get<std::vector<int64_t>>() ==
        BatchSequence(source, config.train.seed, config.train.batch_size).indices(7));
  CHECK(report["lr"] == learning_rate(config.train, 7));
  CHECK(report["in_training"]["loss"] == "nan");
  CHECK(report["in_training"] == report["repeated_op_by_op"]);
  const Json& bad = report["not_finite"];
  CHECK(bad["parameters"] == Json::array({{{"name", "norm_f.weight"}, {"count", 1}, {"of", 16}}}));
  CHECK(bad["gradients"].size() > 3);
  REQUIRE(bad["activations"].size() == 1);
  CHECK(bad["activations"][0]["name"] == "logits");
  CHECK(report["gradient_norms"].size() == loaded.model->parameters().all().size());
  CHECK(report["parameter_norms"]["norm_f.weight"] == "nan");
  CHECK(report["parameter_norms"]["layers.0.norm.weight"].get<double>() == Approx(4.0).epsilon(0.05));

  CHECK(run_until(path, config, -1, 500).end == TrainEnd::diverged);  // it has ended
}

TEST_CASE("a nan is told without its sign, an infinity with it") {
  StepMetrics metrics;
  metrics.loss = std::copysign(std::nan(""), -1.0);
  metrics.aux_loss = 0.5;
  metrics.grad_norm = -std::numeric_limits<double>::infinity();
  CHECK(metrics_text(metrics) == "loss nan, ranking loss 0.5, gradient norm -inf");
}

TEST_CASE(
    "a rewind goes back to the last validation and skips the batch, the same way after any interruption") {
  const Overflowing o;
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole";
  const auto outcome = run_until(whole, o.config);
  REQUIRE(outcome.end == TrainEnd::finished);
  CHECK(outcome.result.step == 20);
  const auto records = rewinds_of(whole);
  REQUIRE(!records.empty());
  const Json first = json_of(whole + "/divergence-1.json");
  CHECK(first["update"] == o.first + 1);
  CHECK(first["batch"] == o.first);
  CHECK(first["in_training"]["grad_norm"] == "inf");
  const int64_t to = o.first / 4 * 4;
  if (records.size() == 1 || records[1].json["step"] != to) {
    CHECK(records[0].json["step"] == to);
    CHECK(records[0].json["skipped_batches"] == o.first + 1 - to);
  }
  const auto info = read_checkpoint_info(whole + "/checkpoints/last.safetensors");
  CHECK(info.rewinds == static_cast<int64_t>(records.size()));
  CHECK(info.skipped_batches == records.back().json["skipped_batches"]);
  CHECK(fs::exists(whole + "/divergence-" + std::to_string(info.rewinds) + ".json"));
  // Every step is logged once, as if nothing had happened.
  int64_t step = 0;
  for (const Record& record : RecordLog(whole + "/metrics.jsonl").records()) {
    if (record.json["kind"] != "train") continue;
    CHECK(record.json["step"] > step);
    step = record.json["step"];
  }

  for (int64_t at = 1; at < 20; at += 2) {
    CAPTURE(at, o.first);
    const std::string path = folder.path() + "/run" + std::to_string(at);
    run_until(path, o.config, at);
    CHECK(run_until(path, o.config).end == TrainEnd::finished);
    CHECK(differences(whole, path) == "");
  }
}

TEST_CASE("a rewind that was killed between its checkpoint and its metrics is completed") {
  const Overflowing o;
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
  REQUIRE(run_until(whole, o.config).end == TrainEnd::finished);
  REQUIRE(run_until(path, o.config, o.first).end == TrainEnd::stopped);
  const std::string metrics = slurp(path + "/metrics.jsonl");
  // Killed in the first step after the rewind.
  struct Killed {};
  const ToySource training(1, -1), validation(2, 64);
  TrainHooks hooks;
  bool overflowed = false;
  hooks.should_stop = [&](int64_t step) -> bool {
    if (overflowed && step <= o.first) throw Killed();
    overflowed = overflowed || step > o.first;
    return false;
  };
  CHECK_THROWS_AS(train(RunFolder::open(path), training, validation, at::kCPU, hooks), Killed);
  spill(path + "/metrics.jsonl", metrics);  // as it was before the rewind
  CHECK(run_until(path, o.config).end == TrainEnd::finished);
  CHECK(differences(whole, path) == "");
}

TEST_CASE("a rewind to a state whose best checkpoint is gone forgets it too") {
  const Overflowing overflowing;
  const TemporaryFolder folder;
  const std::string path = folder.file("run"), best = path + "/checkpoints/best.safetensors";
  run_until(path, overflowing.config, overflowing.first);
  REQUIRE(fs::remove(best));
  const TrainOutcome outcome = run_until(path, overflowing.config);
  CHECK_FALSE(rewinds_of(path).empty());
  REQUIRE(fs::exists(best));
  CHECK(read_checkpoint_info(best).step == outcome.result.best_step);
}

TEST_CASE("rewinds are bounded, and the run then ends as diverged") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  Config config = toy_config();
  config.train.lr = 1e18;
  config.train.warmup_steps = 0;
  config.train.validate_every = 1;
  config.train.on_divergence = OnDivergence::rewind;
  config.train.max_rewinds = 3;
  const auto outcome = run_until(path, config);
  CHECK(outcome.end == TrainEnd::diverged);
  CHECK(rewinds_of(path).size() == 3);
  CHECK(fs::exists(path + "/divergence-4.json"));
  CHECK_FALSE(fs::exists(path + "/divergence-5.json"));
  CHECK(contains(outcome.result.message, "divergence-4.json"));
  const auto last = read_checkpoint(path + "/checkpoints/last.safetensors", at::kCPU);
  CHECK(last.info.rewinds == 3);
  CHECK(at::isfinite(last.model->parameters().flat()).all().item<bool>());

  config.train.max_rewinds = 0;
  const std::string none = folder.path() + "/none";
  CHECK(run_until(none, config).end == TrainEnd::diverged);
  CHECK(rewinds_of(none).empty());
  // Their records reach as far as they can.
  for (const std::string& run : {path, none}) CHECK(stderr_of([&] { read_run(run); }) == "");
}

TEST_CASE("captured steps that diverge are reported op by op, and rewind", "[gpu]") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  Config config = captured_config();
  config.train.lr = 1e30;
  config.train.warmup_steps = 0;
  config.train.validate_every = 2;
  config.train.log_every = 30;
  config.train.on_divergence = OnDivergence::rewind;
  config.train.max_rewinds = 2;
  CHECK(run_until(path, config).end == TrainEnd::diverged);
  CHECK(rewinds_of(path).size() == 2);
  const Json report = json_of(path + "/divergence-3.json");
  CHECK(report["in_training"]["grad_norm"].is_string());
  CHECK(report["repeated_op_by_op"]["grad_norm"].is_string());
  CHECK(report["not_finite"]["gradients"].size() > 0);

  const std::string other = folder.path() + "/other";
  run_until(other, config, 1);
  CHECK(run_until(other, config).end == TrainEnd::diverged);
  CHECK(differences(path, other) == "");
}

}  // namespace hax::test
