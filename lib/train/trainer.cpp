#include "lib/train/trainer.h"

#include <chrono>
#include <filesystem>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/base/log.h"
#include "lib/base/memory.h"
#include "lib/base/parallel.h"
#include "lib/data/prefetch.h"
#include "lib/eval/evaluate.h"
#include "lib/train/best_checkpoint.h"
#include "lib/train/divergence.h"
#include "lib/train/kept_checkpoints.h"
#include "lib/train/step_queue.h"

namespace hax {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr double kSecondsBetweenWarnings = 60.0;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Trainer {
 public:
  Trainer(const RunFolder& run, const FileLock& lock, const ExampleSource& train, const ExampleSource& valid,
          at::Device device, const TrainHooks& hooks)
      : run_(run),
        lock_(lock),
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
    run_.require_regular_files();
    require_room_for_checkpoints(run_, model_);
    if (run_.has_checkpoint() || !kept_checkpoints(run_).empty()) {
      resume();
    } else {
      if (std::filesystem::exists(run_.best_checkpoint())) {
        log::warn(run_.last_checkpoint() + ": is missing, so the run starts over");
      }
      run_.rewind_metrics(info_);
    }
    scorer_ = make_scorer(model_, eval_draws_, valid_.spec(), config_.train.eval_batch_size,
                          compute_dtype(config_.train.precision), /*with_predicted=*/false);
    run_.timing().keep_if([](const Record&) { return true; });
    begin_steps();
  }

  TrainOutcome loop() {
    while (true) {
      if (!boundary()) {
        queue_->push(ahead_->next(), pushed_++);
        continue;
      }
      StepMetrics last;
      if (!settle(last)) {
        if (!rewind(last)) return diverged(last);
        continue;
      }
      if (info_.step > logged_ &&
          (info_.step % config_.train.log_every == 0 || info_.step == config_.train.steps)) {
        log_step(last);
        logged_ = info_.step;
      }
      if (validation_due() && !validate()) return stop();
      if (config_.train.target_accuracy > 0.0 && info_.valid_accuracy >= config_.train.target_accuracy)
        return end(TrainEnd::target_reached, "target_reached");
      if (info_.step >= config_.train.steps) return end(TrainEnd::finished, "finished");
      if (info_.step > saved_step_ && scheduled(info_.step)) save();
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
    stop_asked_ = stop_asked_ || (hooks_.should_stop && hooks_.should_stop(pushed_));
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

  // Is this a step after which a run that nothing interrupts saves?
  bool scheduled(int64_t step) const { return step > 0 && step % config_.train.checkpoint_every == 0; }

  void resume() {
    auto loaded = read_newest_checkpoint(run_, model_.device());
    run_.check_config(loaded.info.config, "its checkpoint");
    if (loaded.info.data_fingerprint != info_.data_fingerprint) {
      throw DataError(run_.path() + ": the training data has changed since the run began (fingerprint " +
                      info_.data_fingerprint + ", the run's is " + loaded.info.data_fingerprint +
                      "); restore the data, or train into another --out");
    }
    take(loaded.info, loaded.model->parameters().flat(), loaded.optimizer);
    forget_lost_best();
    saved_ = true;
    saved_step_ = first_step_ = info_.step;
    first_tokens_ = info_.tokens_seen;
    rewind_metrics();
    log::info("resuming at step " + std::to_string(info_.step));
  }

  // The state of a checkpoint becomes this run's.
  void take(const CheckpointInfo& info, const at::Tensor& weights, const OptimizerState& optimizer) {
    const at::NoGradGuard no_grad;
    model_.parameters().flat().copy_(weights);
    step_.optimiser().state() = optimizer;
    info_ = info;
  }

  // Without its best checkpoint no accuracy is the best so far, and a validation of this very state is due
  // again, so that no run ends without one.
  void forget_lost_best() {
    if (has_usable_best(run_, info_)) return;
    info_.best_accuracy = info_.valid_accuracy = -1.0;
    info_.best_step = 0;
  }

  void begin_steps() {
    pushed_ = logged_ = info_.step;
    queue_ = make_step_queue(model_, step_, config_, info_.data);
    ahead_.emplace(batches_, pushed_ + info_.skipped_batches, batches_ahead(model_.device()));
  }

  // The metrics of info_'s state; the record of its last rewind is a part of them.
  void rewind_metrics() {
    pending_.clear();
    run_.rewind_metrics(info_);
    if (info_.rewinds == 0) return;
    for (const Record& record : run_.metrics().records()) {
      if (record.kind() == "rewind" && record.integer_of("rewinds", 0) == info_.rewinds) return;
    }
    record(Json{{"kind", "rewind"},
                {"step", info_.step},
                {"rewinds", info_.rewinds},
                {"skipped_batches", info_.skipped_batches}});
  }

  bool validation_due() const {
    const bool last = info_.step == config_.train.steps;  // also of a run without steps
    const bool boundary = info_.step > 0 && info_.step % config_.train.validate_every == 0;
    return (last || boundary) && info_.valid_accuracy < 0.0;
  }

  // False when the user stopped it half-way: then it has no effect and is due again.
  bool validate() {
    bool stopped = false;
    const auto stop = [&] {
      return stopped = stopped || (hooks_.should_stop && hooks_.should_stop(info_.step));
    };
    const Evaluation result =
        evaluate(*scorer_, valid_, config_.train.validate_examples, config_.train.eval_batch_size, stop);
    if (stopped) return false;
    const MeanAndError mean = accuracy(result);
    info_.valid_accuracy = mean.mean;
    record(Json{{"kind", "valid"},
                {"step", info_.step},
                {"accuracy", mean.mean},
                {"standard_error", mean.standard_error},
                {"loss", result.loss},
                {"examples", mean.n}});
    std::ostringstream text;
    text << "step " << info_.step << "  validation accuracy " << std::fixed << std::setprecision(2)
         << 100.0 * mean.mean << " %  loss " << std::setprecision(4) << result.loss;
    log::info(text.str());
    if (mean.mean > info_.best_accuracy) {
      const CheckpointInfo before = info_;
      info_.best_accuracy = mean.mean;
      info_.best_step = info_.step;
      if (!attempt([&] { write_checkpoint(run_.best_checkpoint(), model_, info_, nullptr); })) info_ = before;
    }
    if (config_.train.on_divergence == OnDivergence::rewind && info_.step < config_.train.steps) {
      attempt([&] { write_checkpoint(run_.rewind_checkpoint(), model_, info_, &step_.optimiser().state()); });
    }
    return true;
  }

  // Writes to the run folder, while it is still the one that was locked. Where that fails, the run ends with
  // what was saved before or, under train.on_save_error = continue and unless it is the last time, goes on:
  // false.
  template <class Write>
  bool attempt(Write write, bool last_time = false) {
    const std::string lock = run_.path() + "/lock";
    std::error_code unseen;  // as where a folder above may not be entered any more
    const bool gone = !std::filesystem::exists(std::filesystem::symlink_status(lock, unseen));
    if (!gone && !lock_.in_place()) {
      throw RuntimeError(lock +
                         ": is not the file that this run has locked: the folder was replaced; the run stops "
                         "at step " +
                         std::to_string(info_.step) +
                         " and writes nothing there; what it saved is in the folder that it began in");
    }
    try {
      if (gone) throw RuntimeError(lock + ": is gone: the folder was moved, or the lock removed");
      write();
      warned_.reset();
      return true;
    } catch (const RuntimeError& e) {
      const std::string saved =
          !saved_ ? "nothing is saved yet"
                  : "the state of step " + std::to_string(saved_step_) +
                        (run_.has_checkpoint() ? " is saved"
                                               : " was saved, and " + run_.last_checkpoint() + " is gone");
      if (last_time || config_.train.on_save_error == OnSaveError::stop) {
        throw RuntimeError(std::string(e.what()) + "; the run stops at step " + std::to_string(info_.step) +
                           ", " + saved + "; make it possible to write there and run the same command again");
      }
      warn(std::string(e.what()) + "; training goes on (train.on_save_error = continue), " + saved);
      return false;
    }
  }

  // Once a while, as every record may fail the same way.
  void warn(const std::string& text) {
    if (warned_ && seconds_since(*warned_) < kSecondsBetweenWarnings) return;
    log::warn(text);
    warned_ = Clock::now();
  }

  // Metrics that could not be written wait for the next time.
  void record(const Json& metrics) {
    pending_ += record_line(metrics);
    attempt([&] { write_pending(); });
  }

  void write_pending() {
    if (pending_.empty()) return;
    run_.metrics().append(pending_);
    pending_.clear();
  }

  // What the metrics say up to a checkpoint is on the disk before it: a run that goes on adds to them.
  bool save(bool last_time = false) {
    return attempt(
        [&] {
          write_pending();
          run_.metrics().sync();
          if (saved_step_ < info_.step && scheduled(saved_step_)) keep_last_checkpoint(run_, saved_step_);
          write_checkpoint(run_.last_checkpoint(), model_, info_, &step_.optimiser().state());
          saved_ = true;
          saved_step_ = info_.step;
          // A run that is stopped drops nothing that it would still have without the stop.
          if (!stop_asked_) drop_old_checkpoints(run_, config_.train.keep_last - 1);
          write_timing();
        },
        last_time);
  }

  void write_timing() {
    const double seconds = seconds_since(session_);
    run_.timing().append(record_line({{"step", info_.step}, {"seconds", seconds - timed_}}));
    timed_ = seconds;
  }

  void log_step(const StepMetrics& m) {
    const double lr = learning_rate(config_.train, info_.step - 1);
    record(Json{{"kind", "train"},
                {"step", info_.step},
                {"loss", m.loss},
                {"aux_loss", m.aux_loss},
                {"accuracy", m.accuracy},
                {"grad_norm", m.grad_norm},
                {"lr", lr},
                {"tokens_seen", info_.tokens_seen}});
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
    save(/*last_time=*/true);
    const RunResult r = result(status);
    attempt([&] { run_.write_result(r); }, /*last_time=*/true);
    return {how, r};
  }

  TrainOutcome stop() {
    stop_asked_ = true;
    save(/*last_time=*/true);
    return {TrainEnd::stopped, result("stopped")};
  }

  static std::string divergence_file(int64_t count) {
    return "divergence-" + std::to_string(count) + ".json";
  }

  void report_divergence(const StepMetrics& m) {
    const int64_t batch = info_.step + info_.skipped_batches;
    std::string report;
    try {
      report = divergence_report(model_, step_, config_, batches_.batch(batch),
                                 {info_.step, batch, batches_.indices(batch), m});
    } catch (const std::exception& e) {
      log::warn(std::string("the step that was not finite could not be repeated: ") + e.what());
      return;
    }
    attempt([&] { write_file(run_.path() + "/" + divergence_file(info_.rewinds + 1), report); });
  }

  // After a step that was not finite: back to the last validation, or to the start, and on from there with
  // the batch behind the one that failed. False when the config or its limit forbids it.
  bool rewind(const StepMetrics& m) {
    report_divergence(m);
    const TrainConfig& t = config_.train;
    if (t.on_divergence == OnDivergence::stop || info_.rewinds >= t.max_rewinds) return false;
    const int64_t failed = info_.step, batch = failed + info_.skipped_batches, rewinds = info_.rewinds + 1;
    const int64_t to = failed / t.validate_every * t.validate_every;
    if (to > 0) {
      const auto loaded = read_checkpoint(run_.rewind_checkpoint(), model_.device());
      if (loaded.info.step != to || !loaded.optimizer.exp_avg.defined()) {
        throw DataError(run_.rewind_checkpoint() + ": holds the state of step " +
                        std::to_string(loaded.info.step) + ", and the run must go back to step " +
                        std::to_string(to));
      }
      take(loaded.info, loaded.model->parameters().flat(), loaded.optimizer);
      forget_lost_best();
    } else {
      const LanguageModel fresh(config_.model, info_.data, t.seed, model_.device(),
                                weight_dtype(t.precision));
      CheckpointInfo start;
      start.config = info_.config;
      start.data = info_.data;
      start.data_fingerprint = info_.data_fingerprint;
      const at::Tensor zero = at::zeros_like(fresh.parameters().flat());
      take(start, fresh.parameters().flat(), {zero, zero.clone()});
    }
    info_.rewinds = rewinds;
    info_.skipped_batches = batch + 1 - to;
    log::warn("update " + std::to_string(failed + 1) + " was not finite (" + divergence_file(rewinds) +
              "): back to step " + std::to_string(to) + ", rewind " + std::to_string(rewinds) + " of " +
              std::to_string(t.max_rewinds));
    // From here on a run that is killed goes on behind the rewind; its metrics follow.
    drop_later_checkpoints(run_, to);
    saved_step_ = to;
    save();
    rewind_metrics();
    begin_steps();
    return true;
  }

  // Saves nothing: weights whose loss is not finite are no state to go on from, and the last checkpoint is.
  TrainOutcome diverged(const StepMetrics& m) {
    attempt([&] { write_timing(); });
    std::ostringstream text;
    text << "at update " << info_.step + 1 << ": " << metrics_text(m) << ", see "
         << divergence_file(info_.rewinds + 1)
         << "; a lower train.lr, a longer train.warmup_steps or train.grad_clip may help";
    const RunResult r = result("diverged", text.str());
    attempt([&] { run_.write_result(r); }, /*last_time=*/true);
    return {TrainEnd::diverged, r};
  }

  const RunFolder& run_;
  const FileLock& lock_;
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
  std::optional<Clock::time_point> warned_;  // of a save that failed, the last time
  bool saved_ = false;
  int64_t saved_step_ = 0;  // of the last checkpoint
  std::string pending_;     // lines of metrics that are not in the file yet
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
  const FileLock lock = run.lock();
  const int64_t threads = run.config().train.threads;
  at::set_num_threads(threads > 0 ? static_cast<int>(threads) : hardware_threads());
  if (device.is_cpu()) keep_freed_memory();
  return Trainer(run, lock, train, valid, device, hooks).loop();
}

}  // namespace hax
