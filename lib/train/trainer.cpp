#include "lib/train/trainer.h"

#include <chrono>
#include <filesystem>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/base/memory.h"
#include "lib/base/parallel.h"
#include "lib/data/prefetch.h"
#include "lib/eval/evaluate.h"
#include "lib/train/step_queue.h"

namespace hax {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Trainer {
 public:
  Trainer(const RunFolder& run, const ExampleSource& train, const ExampleSource& valid, at::Device device,
          const TrainHooks& hooks)
      : run_(run),
        config_(run.config()),
        valid_(valid),
        hooks_(hooks),
        model_(config_.model, train.spec(), config_.train.seed, device,
               weight_dtype(config_.train.precision)),
        step_(model_, config_),
        eval_draws_(config_, device),
        batches_(train, config_.train.seed, config_.train.batch_size) {
    info_.config = config_;
    info_.data = train.spec();
    info_.data_fingerprint = train.fingerprint();
    check_fits(info_, valid.spec(), "the validation split");
    if (run_.has_checkpoint()) {
      resume(device);
    } else {
      if (std::filesystem::exists(run_.best_checkpoint())) {
        log::warn(run_.last_checkpoint() + ": is missing, so the run starts over");
      }
      run_.rewind_metrics(0, false);
    }
    pushed_ = logged_ = info_.step;
    queue_ = make_step_queue(model_, step_, config_, info_.data);
    scorer_ = make_scorer(model_, eval_draws_, valid_.spec(), config_.train.eval_batch_size,
                          compute_dtype(config_.train.precision), /*with_predicted=*/false);
    ahead_.emplace(batches_, pushed_, batches_ahead(device));
  }

  TrainOutcome loop() {
    while (true) {
      if (!boundary()) {
        queue_->push(ahead_->next(), pushed_++);
        continue;
      }
      StepMetrics last;
      if (!settle(last)) return diverged(last);
      if (info_.step > logged_ &&
          (info_.step % config_.train.log_every == 0 || info_.step == config_.train.steps)) {
        log_step(last);
        logged_ = info_.step;
      }
      if (validation_due()) {
        if (!validate()) return stop();
        if (config_.train.target_accuracy > 0.0 && info_.valid_accuracy >= config_.train.target_accuracy) {
          return end(TrainEnd::target_reached, "target_reached");
        }
      }
      if (info_.step >= config_.train.steps) return end(TrainEnd::finished, "finished");
      if (info_.step > saved_step_ && info_.step % config_.train.checkpoint_every == 0) save();
      if (stop_asked_) return stop();

      queue_->push(ahead_->next(), pushed_++);
    }
  }

 private:
  // Is there something to do between the steps that were started and the next?
  bool boundary() {
    const TrainConfig& t = config_.train;
    return stop_asked() || pushed_ == t.steps || pushed_ % t.log_every == 0 ||
           pushed_ % t.validate_every == 0 || pushed_ % t.checkpoint_every == 0 || queue_->failed();
  }

  // Once true it stays so: the request is met at the next boundary.
  bool stop_asked() {
    stop_asked_ = stop_asked_ || (hooks_.should_stop && hooks_.should_stop());
    return stop_asked_;
  }

  // Waits for the steps that were started, and counts them. False when one was not finite, which is then
  // `last`.
  bool settle(StepMetrics& last) {
    for (const StepMetrics& metrics : queue_->drain()) {
      last = metrics;
      if (!metrics.finite()) return false;
      ++info_.step;
      info_.tokens_seen += metrics.tokens;
      info_.valid_accuracy = -1.0;
    }
    return true;
  }

  void resume(at::Device device) {
    auto loaded = read_checkpoint(run_.last_checkpoint(), device);
    if (!loaded.optimizer.exp_avg.defined()) {
      throw DataError(run_.last_checkpoint() + ": holds no optimiser state, so the run cannot go on from it");
    }
    if (loaded.info.data_fingerprint != info_.data_fingerprint) {
      throw DataError(run_.path() + ": the training data has changed since the run began (fingerprint " +
                      info_.data_fingerprint + ", the run's is " + loaded.info.data_fingerprint +
                      "); restore the data, or train into another --out");
    }
    const at::NoGradGuard no_grad;
    model_.parameters().flat().copy_(loaded.model->parameters().flat());
    step_.optimiser().state() = loaded.optimizer;
    info_ = loaded.info;
    saved_step_ = first_step_ = info_.step;
    first_tokens_ = info_.tokens_seen;
    run_.rewind_metrics(info_.step, info_.valid_accuracy >= 0.0);
    log::info("resuming at step " + std::to_string(info_.step));
  }

  bool validation_due() const {
    const bool last = info_.step == config_.train.steps;  // also of a run without steps
    const bool boundary = info_.step > 0 && info_.step % config_.train.validate_every == 0;
    return (last || boundary) && info_.valid_accuracy < 0.0;
  }

  // False when the user stopped it half-way: then it has no effect and is due again.
  bool validate() {
    bool stopped = false;
    const auto stop = [&] { return stopped = stopped || (hooks_.should_stop && hooks_.should_stop()); };
    const Evaluation result =
        evaluate(*scorer_, valid_, config_.train.validate_examples, config_.train.eval_batch_size, stop);
    if (stopped) return false;
    const MeanAndError mean = accuracy(result);
    info_.valid_accuracy = mean.mean;
    run_.append_metrics(Json{
        {"kind", "valid"},
        {"step", info_.step},
        {"accuracy", mean.mean},
        {"standard_error", mean.standard_error},
        {"loss", result.loss},
        {"examples",
         mean.n}}.dump());
    std::ostringstream text;
    text << "step " << info_.step << "  validation accuracy " << std::fixed << std::setprecision(2)
         << 100.0 * mean.mean << " %  loss " << std::setprecision(4) << result.loss;
    log::info(text.str());
    if (mean.mean > info_.best_accuracy) {
      info_.best_accuracy = mean.mean;
      info_.best_step = info_.step;
      write_checkpoint(run_.best_checkpoint(), model_, info_, nullptr);
    }
    return true;
  }

  void save() {
    write_checkpoint(run_.last_checkpoint(), model_, info_, &step_.optimiser().state());
    saved_step_ = info_.step;
    write_timing();
  }

  void write_timing() {
    const double seconds = seconds_since(session_);
    run_.append_timing(Json{{"step", info_.step}, {"seconds", seconds - timed_}}.dump());
    timed_ = seconds;
  }

  void log_step(const StepMetrics& m) {
    const double lr = learning_rate(config_.train, info_.step - 1);
    run_.append_metrics(Json{
        {"kind", "train"},
        {"step", info_.step},
        {"loss", m.loss},
        {"aux_loss", m.aux_loss},
        {"accuracy", m.accuracy},
        {"grad_norm", m.grad_norm},
        {"lr", lr},
        {"tokens_seen",
         info_.tokens_seen}}.dump());
    if (!hooks_.progress) return;
    const double elapsed = seconds_since(session_);
    const auto done = static_cast<double>(info_.step - first_step_);
    std::ostringstream text;
    text << "step " << info_.step << '/' << config_.train.steps << std::fixed << std::setprecision(4)
         << "  loss " << m.loss << std::setprecision(1) << "  accuracy " << 100.0 * m.accuracy << " %  "
         << std::setprecision(0) << static_cast<double>(info_.tokens_seen - first_tokens_) / elapsed
         << " tokens/s  ETA "
         << log::format_seconds(elapsed / done * static_cast<double>(config_.train.steps - info_.step));
    hooks_.progress(text.str());
  }

  RunResult result(const std::string& status, const std::string& message = "") const {
    return {
        status, info_.step, info_.tokens_seen, info_.best_accuracy, info_.best_step, run_.seconds_so_far(),
        message};
  }

  TrainOutcome end(TrainEnd how, const std::string& status) {
    save();
    const RunResult r = result(status);
    run_.write_result(r);
    return {how, r};
  }

  TrainOutcome stop() {
    save();
    return {TrainEnd::stopped, result("stopped")};
  }

  // Saves nothing: weights whose loss is not finite are no state to go on from, and the last checkpoint is.
  TrainOutcome diverged(const StepMetrics& m) {
    write_timing();
    std::ostringstream text;
    text << "at update " << info_.step + 1 << ": loss " << m.loss << ", ranking loss " << m.aux_loss
         << ", gradient norm " << m.grad_norm
         << "; a lower train.lr, a longer train.warmup_steps or train.grad_clip may help";
    const RunResult r = result("diverged", text.str());
    run_.write_result(r);
    return {TrainEnd::diverged, r};
  }

  const RunFolder& run_;
  const Config& config_;
  const ExampleSource& valid_;
  const TrainHooks& hooks_;
  LanguageModel model_;
  TrainStep step_;
  EvaluationDraws eval_draws_;
  std::unique_ptr<Scorer> scorer_;
  BatchSequence batches_;
  std::unique_ptr<StepQueue> queue_;
  std::optional<BatchPrefetch> ahead_;
  bool stop_asked_ = false;
  int64_t pushed_ = 0, logged_ = 0;  // updates that were started, and the last that was logged
  CheckpointInfo info_;
  int64_t saved_step_ = 0;
  const Clock::time_point session_ = Clock::now();
  double timed_ = 0.0;
  int64_t first_step_ = 0, first_tokens_ = 0;
};

}  // namespace

TrainOutcome train(const RunFolder& run, const ExampleSource& train, const ExampleSource& valid,
                   at::Device device, const TrainHooks& hooks) {
  if (const auto result = run.result()) {
    const TrainEnd end = result->status == "diverged"         ? TrainEnd::diverged
                         : result->status == "target_reached" ? TrainEnd::target_reached
                                                              : TrainEnd::finished;
    return {end, *result};
  }
  const auto held = run.lock();
  const int64_t threads = run.config().train.threads;
  at::set_num_threads(threads > 0 ? static_cast<int>(threads) : hardware_threads());
  if (device.is_cpu()) keep_freed_memory();
  return Trainer(run, train, valid, device, hooks).loop();
}

at::Device choose_device(DeviceKind kind) {
  const bool cuda = at::globalContext().hasCUDA();
  if (kind == DeviceKind::cuda && !cuda) {
    throw UsageError(
        "train.device: cuda is asked for, and this machine or build has no CUDA device; use cpu or auto");
  }
  return cuda && kind != DeviceKind::cpu ? at::Device(at::kCUDA) : at::Device(at::kCPU);
}

}  // namespace hax
