// A run is a folder, and the folder is the only truth about it:
//   config.yaml              the resolved config
//   metrics.jsonl            one line a record: {"kind": "train" | "valid", "step": ..., ...}; no clock in it
//   timing.jsonl             wall-clock seconds and tokens a second, by step
//   checkpoints/last.safetensors, checkpoints/best.safetensors
//   result.json              written last: how the run ended
//   eval-FINGERPRINT.json    evaluations of the best checkpoint by `hax table`
//   (lib/train/stored_evaluation.h) lock                     held by the process that trains
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "lib/model/checkpoint.h"

namespace hax {

struct RunResult {
  std::string status;  // "finished", "target_reached" or "diverged"
  int64_t step = 0;
  int64_t tokens_seen = 0;
  double best_accuracy = -1.0;
  int64_t best_step = 0;
  double seconds = 0.0;
  std::string message;  // what diverged, and where
};

// What the metrics say of a run so far.
struct RunProgress {
  int64_t step = 0;  // of the last record
  int64_t tokens_seen = 0;
  double best_accuracy = -1.0;  // -1: not validated yet
  int64_t best_step = 0;
};

class RunFolder {
 public:
  // Creates the folder, or opens the run in it. Throws UsageError when the folder holds something else, or a
  // run of another config (naming the keys that differ). Keys that do not change what is computed may differ:
  // name, data.path, train.threads, train.log_every, train.checkpoint_every, train.eval_batch_size.
  static RunFolder create_or_resume(const std::string& path, const Config& config);
  // Throws DataError when there is no run.
  static RunFolder open(const std::string& path);

  const std::string& path() const { return path_; }
  const Config& config() const { return config_; }
  std::string last_checkpoint() const { return path_ + "/checkpoints/last.safetensors"; }
  std::string best_checkpoint() const { return path_ + "/checkpoints/best.safetensors"; }
  bool has_checkpoint() const;
  std::optional<RunResult> result() const;
  void write_result(const RunResult& result) const;

  // Appends one JSON object a line.
  void append_metrics(const std::string& json) const;
  void append_timing(const std::string& json) const;
  RunProgress progress() const;
  // Whether a process holds the lock.
  bool is_training() const;
  // Holds the run for this process until the returned handle goes; throws UsageError when another one has it.
  std::shared_ptr<const void> lock() const;
  // Drops records that a resumed run will write again: those after `step`, and the validation at `step`
  // itself unless `validated`.
  void rewind_metrics(int64_t step, bool validated) const;
  double seconds_so_far() const;

 private:
  RunFolder(std::string path, Config config) : path_(std::move(path)), config_(std::move(config)) {}
  std::string path_;
  Config config_;
};

}  // namespace hax
