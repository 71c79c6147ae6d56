// Runs as folders: what they hold, how they end, and that an interrupted one goes on as if it had not been.
#include <cmath>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/safetensors.h"
#include "lib/train/train_step.h"
#include "lib/train/trainer.h"
#include "tests/catch.h"
#include "tests/support.h"
#include "tests/train/toy_source.h"

namespace hax::test {
namespace {

namespace fs = std::filesystem;

TrainOutcome run_toy(const std::string& path, const Config& config, int stop_after_asking = -1) {
  const ToySource training(1, 500), validation(2, 64);
  int asked = 0;
  TrainHooks hooks;
  hooks.should_stop = [&](int64_t) { return stop_after_asking >= 0 && ++asked > stop_after_asking; };
  return train(RunFolder::create_or_resume(path, config), training, validation, at::kCPU, hooks);
}

}  // namespace

TEST_CASE("a run writes its config, metrics, checkpoints and result") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  const auto outcome = run_toy(path, toy_config());
  CHECK(outcome.end == TrainEnd::finished);
  CHECK(outcome.result.step == 30);
  CHECK(outcome.result.tokens_seen == 30 * 8 * 7);
  const std::string metrics = read_file(path + "/metrics.jsonl");
  CHECK(std::count(metrics.begin(), metrics.end(), '\n') == 10 + 3);
  const auto last = read_checkpoint(path + "/checkpoints/last.safetensors", at::kCPU);
  CHECK(last.info.step == 30);
  CHECK(last.info.data.vocab_size == 8);
  CHECK(last.optimizer.exp_avg_sq.defined());
  CHECK(last.draws->stored().size() == 2);
  const auto best = read_checkpoint(path + "/checkpoints/best.safetensors", at::kCPU);
  CHECK(best.info.step == outcome.result.best_step);
  CHECK_FALSE(best.optimizer.exp_avg.defined());
}

TEST_CASE("a run without steps validates and saves its initial weights") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  Config config = toy_config();
  config.train.steps = 0;
  CHECK(run_toy(path, config, 0).end == TrainEnd::stopped);  // before validation has ended
  const auto outcome = run_toy(path, config);
  CHECK(outcome.end == TrainEnd::finished);
  CHECK(outcome.result.step == 0);
  CHECK(outcome.result.best_step == 0);
  CHECK(outcome.result.best_accuracy >= 0.0);
  const std::string metrics = read_file(path + "/metrics.jsonl");
  CHECK(std::count(metrics.begin(), metrics.end(), '\n') == 1);
  const LanguageModel fresh(config.model, 8, config.train.seed, at::kCPU);
  for (const char* name : {"/checkpoints/last.safetensors", "/checkpoints/best.safetensors"}) {
    const auto saved = read_checkpoint(path + name, at::kCPU);
    CHECK(at::equal(saved.model->parameters().flat(), fresh.parameters().flat()));
    CHECK(saved.info.valid_accuracy == outcome.result.best_accuracy);
  }
  CHECK(run_toy(path, config).end == TrainEnd::finished);
}

TEST_CASE("a stopped run goes on to the same bytes") {
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole", pieces = folder.path() + "/pieces";
  run_toy(whole, toy_config());
  // Stops between steps and, because validation asks too, in the middle of one.
  for (int asked : {4, 7, 3, 9}) CHECK(run_toy(pieces, toy_config(), asked).end == TrainEnd::stopped);
  CHECK(run_toy(pieces, toy_config()).end == TrainEnd::finished);
  for (const char* name :
       {"/checkpoints/last.safetensors", "/checkpoints/best.safetensors", "/metrics.jsonl", "/config.yaml"}) {
    CAPTURE(name);
    CHECK(read_file(whole + name) == read_file(pieces + name));
  }
}

TEST_CASE("a stopped run of bf16 weights goes on to the same bytes, and keeps them in bf16") {
  for (const Statistics mode : {Statistics::causal, Statistics::paper}) {
    const TemporaryFolder folder;
    Config config = toy_config();
    config.model.mode = mode;
    config.train.precision = Precision::pure_bf16;
    config.train.steps = 12;
    config.train.validate_every = 6;
    const std::string whole = folder.path() + "/whole", pieces = folder.path() + "/pieces";
    run_toy(whole, config);
    for (int asked : {4, 3}) CHECK(run_toy(pieces, config, asked).end == TrainEnd::stopped);
    CHECK(run_toy(pieces, config).end == TrainEnd::finished);
    for (const char* name :
         {"/checkpoints/last.safetensors", "/checkpoints/best.safetensors", "/metrics.jsonl"}) {
      CAPTURE(name);
      CHECK(read_file(whole + name) == read_file(pieces + name));
    }
    const auto last = read_checkpoint(whole + "/checkpoints/last.safetensors", at::kCPU);
    CHECK(last.model->parameters().flat().scalar_type() == at::kBFloat16);
    CHECK(last.optimizer.exp_avg.scalar_type() == at::kBFloat16);
    const auto file = Safetensors::open(whole + "/checkpoints/last.safetensors");
    for (const char* name : {"embeddings.weight", "optimizer.exp_avg.embeddings.weight"})
      CHECK(file.info(name).dtype == Dtype::bf16);
  }
}

TEST_CASE("a precision and a mode are independent, and every pair of them learns") {
  for (const Statistics mode : {Statistics::causal, Statistics::paper}) {
    for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::pure_bf16}) {
      CAPTURE(static_cast<int>(mode), static_cast<int>(precision));
      Config config = toy_config();
      config.model.mode = mode;
      config.train.precision = precision;
      LanguageModel model(config.model, 8, 1, at::kCPU, weight_dtype(precision));
      TrainStep step(model, config);
      const ToySource source(1, 100);
      Batch batch = empty_batch(source.spec());
      for (int i = 0; i < 8; ++i) source.append_example(i, batch);
      const double first = step.run(batch, 0, training_draws(config, 0)).loss;
      double last = first;
      for (int64_t s = 1; s < 25; ++s) last = step.run(batch, s, training_draws(config, s)).loss;
      CHECK(first == Approx(std::log(8.0)).epsilon(0.15));
      CHECK(last < first - 0.3);
    }
  }
}

TEST_CASE("a finished run is left as it is") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  run_toy(path, toy_config());
  const auto before = fs::last_write_time(path + "/checkpoints/last.safetensors");
  const auto again = run_toy(path, toy_config());
  CHECK(again.result.status == "finished");
  CHECK(fs::last_write_time(path + "/checkpoints/last.safetensors") == before);
}

TEST_CASE("a run of another config, a foreign folder and changed data are refused") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  run_toy(path, toy_config(), 8);
  Config other = toy_config();
  other.train.lr = 1e-3;
  try {
    RunFolder::create_or_resume(path, other);
    FAIL("another config was accepted");
  } catch (const UsageError& e) {
    CHECK(std::string(e.what()).find("train.lr") != std::string::npos);
  }
  const ToySource changed(77, 500), validation(2, 64);
  CHECK_THROWS_AS(train(RunFolder::open(path), changed, validation, at::kCPU, {}), DataError);
  make_directories(folder.path() + "/foreign");
  write_file(folder.path() + "/foreign/notes.txt", "mine");
  CHECK_THROWS_AS(RunFolder::create_or_resume(folder.path() + "/foreign", other), UsageError);
  CHECK_THROWS_AS(RunFolder::open(folder.path() + "/nowhere"), DataError);
}

TEST_CASE("a run that lost its last checkpoint starts over, with no line of the past") {
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
  run_toy(whole, toy_config());
  run_toy(path, toy_config(), 20);
  fs::remove_all(path + "/checkpoints");
  CHECK(run_toy(path, toy_config()).end == TrainEnd::finished);
  for (const char* name : {"/metrics.jsonl", "/checkpoints/last.safetensors"}) {
    CHECK(read_file(whole + name) == read_file(path + name));
  }
}

TEST_CASE("a run has one writer") {
  const TemporaryFolder folder;
  const RunFolder run = RunFolder::create_or_resume(folder.path() + "/run", toy_config());
  {
    const auto held = run.lock();
    CHECK_THROWS_AS(run_toy(folder.path() + "/run", toy_config()), UsageError);
  }
  CHECK(run_toy(folder.path() + "/run", toy_config()).end == TrainEnd::finished);
}

TEST_CASE("keys that do not change what is computed may change before a resume") {
  const TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole", path = folder.path() + "/run";
  run_toy(whole, toy_config());
  run_toy(path, toy_config(), 12);
  Config other = toy_config();
  other.data.path = "elsewhere";
  other.train.threads = 2;
  other.train.eval_batch_size = 7;
  CHECK(run_toy(path, other).end == TrainEnd::finished);
}

TEST_CASE("a run that never began may change its config") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  RunFolder::create_or_resume(path, toy_config());
  Config other = toy_config();
  other.train.steps = 3;
  other.train.warmup_steps = 1;
  CHECK(RunFolder::create_or_resume(path, other).config().train.steps == 3);
  CHECK(RunFolder::open(path).config().train.steps == 3);
}

TEST_CASE("a checkpoint with one flipped bit is refused") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  run_toy(path, toy_config());
  const std::string file = path + "/checkpoints/best.safetensors", good = read_file(file);
  for (const size_t place : {good.size() - 3, good.size() / 2, good.size() * 3 / 4}) {
    std::string bad = good;
    bad[place] = static_cast<char>(bad[place] ^ 4);
    write_file(file, bad);
    CAPTURE(place);
    CHECK_THROWS_AS(read_checkpoint(file, at::kCPU), DataError);
  }
  write_file(file, good);
  CHECK_NOTHROW(read_checkpoint(file, at::kCPU));
}

TEST_CASE("a damaged config of a run is bad data") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  RunFolder::create_or_resume(path, toy_config());
  write_file(path + "/config.yaml", "train: [");
  CHECK_THROWS_AS(RunFolder::open(path), DataError);
}

TEST_CASE("a non-finite loss stops before the update and keeps the last good checkpoint") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/run";
  Config config = toy_config();
  config.train.lr = 1e18;
  config.train.warmup_steps = 0;
  config.train.checkpoint_every = 1;
  const auto outcome = run_toy(path, config);
  CHECK(outcome.end == TrainEnd::diverged);
  CHECK(outcome.result.message.find("at update") != std::string::npos);
  CHECK(outcome.result.step < 30);
  CHECK(RunFolder::open(path).result()->status == "diverged");
  if (RunFolder::open(path).has_checkpoint()) {
    const auto last = read_checkpoint(path + "/checkpoints/last.safetensors", at::kCPU);
    CHECK(last.info.step <= outcome.result.step);
    CHECK(at::isfinite(last.model->parameters().flat()).all().item<bool>());
  }
}

TEST_CASE("nothing is updated when the gradient is not finite") {
  Config config = toy_config();
  LanguageModel model(config.model, 8, 1, at::kCPU);
  TrainStep step(model, config);
  const ToySource source(1, 100);
  Batch batch = empty_batch(source.spec());
  for (int i = 0; i < 4; ++i) source.append_example(i, batch);
  {
    const at::NoGradGuard no_grad;
    model.parameters().find("norm_f.weight")->select(0, 0).fill_(std::nanf(""));
  }
  const auto before = model.parameters().flat().clone();
  CHECK_FALSE(step.run(batch, 7, training_draws(config, 7)).finite());
  CHECK(at::equal(at::nan_to_num(before, -1.0), at::nan_to_num(model.parameters().flat(), -1.0)));
  CHECK(step.optimiser().state().exp_avg.count_nonzero().item<int64_t>() == 0);
}

TEST_CASE("training stops at the target accuracy, and learns the toy task") {
  const TemporaryFolder folder;
  Config config = toy_config();
  config.train.steps = 2000;
  config.train.validate_every = 50;
  config.train.checkpoint_every = 1000;
  config.train.target_accuracy = 0.95;
  const auto outcome = run_toy(folder.path() + "/run", config);
  CHECK(outcome.end == TrainEnd::target_reached);
  CHECK(outcome.result.step < 2000);
  CHECK(outcome.result.best_accuracy >= 0.95);
}

TEST_CASE("learning rate: warm-up from zero, then constant or cosine") {
  TrainConfig config;
  config.lr = 1.0;
  config.steps = 101;
  config.warmup_steps = 20;
  CHECK(learning_rate(config, 0) == 0.0);
  CHECK(learning_rate(config, 5) == Approx(0.25));
  CHECK(learning_rate(config, 20) == 1.0);
  CHECK(learning_rate(config, 100) == 1.0);
  config.schedule = Schedule::cosine;
  config.lr_min_ratio = 0.1;
  CHECK(learning_rate(config, 20) == Approx(1.0));
  CHECK(learning_rate(config, 60) == Approx(0.55));
  CHECK(learning_rate(config, 100) == Approx(0.1));
  config.warmup_steps = 0;
  CHECK(learning_rate(config, 0) == Approx(1.0));
}

TEST_CASE("gradient clipping scales the whole gradient to the given norm") {
  Config config = toy_config();
  config.train.grad_clip = 0.5;
  config.train.beta1 = 0.0;  // exp_avg is then the gradient that was used
  LanguageModel model(config.model, 8, 1, at::kCPU);
  TrainStep step(model, config);
  const ToySource source(1, 100);
  Batch batch = empty_batch(source.spec());
  for (int i = 0; i < 8; ++i) source.append_example(i, batch);
  const auto metrics = step.run(batch, 0, training_draws(config, 0));
  REQUIRE(metrics.grad_norm > 0.5);
  CHECK(step.optimiser().state().exp_avg.norm().item<double>() == Approx(0.5).epsilon(1e-5));
}

TEST_CASE("a GPU run trains, resumes and evaluates", "[gpu]") {
  const TemporaryFolder folder;
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    Config config = toy_config();
    config.train.precision = precision;
    config.train.device = DeviceKind::cuda;
    config.train.steps = 1500;
    config.train.validate_every = 50;
    config.train.checkpoint_every = 1000;
    config.train.target_accuracy = 0.95;
    const std::string path = folder.path() + "/run" + std::to_string(static_cast<int>(precision));
    const ToySource training(1, 500), validation(2, 64);
    int asked = 0;
    TrainHooks hooks;
    hooks.should_stop = [&](int64_t) { return ++asked == 30; };
    CHECK(train(RunFolder::create_or_resume(path, config), training, validation, at::kCUDA, hooks).end ==
          TrainEnd::stopped);
    const auto outcome =
        train(RunFolder::create_or_resume(path, config), training, validation, at::kCUDA, {});
    CHECK(outcome.end == TrainEnd::target_reached);
  }
}

}  // namespace hax::test
