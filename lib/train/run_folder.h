// A run is a folder, and the folder is the only truth about it:
//   config.yaml              the resolved config
//   metrics.jsonl            one line a record: {"kind": "train" | "valid" | "rewind", "step": ..., ...,
//                            "checksum": ...}; no clock
//   timing.jsonl             wall-clock seconds, by step
//   checkpoints/last.safetensors, best.safetensors; what else is there: lib/train/kept_checkpoints.h
//   divergence-N.json        the N-th step that was not finite (lib/train/divergence.h)
//   result.json              written last: how the run ended
//   eval-FINGERPRINT.json    evaluations of the best checkpoint by `hax table`; see stored_evaluation.h
//   lock                     held by the process that trains (lib/base/file_lock.h)
#pragma once

#include <optional>
#include <string>

#include "lib/base/file_lock.h"
#include "lib/model/checkpoint.h"
#include "lib/train/record_log.h"

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
  int64_t validated_step = 0;  // of the last validation; 0 without one
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
  std::string rewind_checkpoint() const { return path_ + "/checkpoints/rewind.safetensors"; }
  bool has_checkpoint() const;
  // Throws DataError naming the keys in which the run's config and that of one of its checkpoints differ, but
  // for those that may.
  void check_config(const Config& of_checkpoint, const std::string& checkpoint) const;
  // Throws RuntimeError where the run is to write a file and something stands that is no regular file.
  void require_regular_files() const;
  std::optional<RunResult> result() const;
  void write_result(const RunResult& result) const;

  RecordLog metrics() const;
  RecordLog timing() const;
  RunProgress progress() const;  // a warning names the lines that are damaged
  // Whether a process holds the lock.
  bool is_training() const;
  // Holds the run until the lock's end. Throws UsageError that names the holder when another one has it.
  FileLock lock() const;
  // Brings the metrics to the state of a checkpoint: without the records that a resumed run will write again,
  // those after its step, its own validation unless it holds that, and rewinds that it knows nothing of. A
  // warning says so where the last ones before its step are missing.
  void rewind_metrics(const CheckpointInfo& to) const;
  double seconds_so_far() const;  // a warning as for progress()

 private:
  RunFolder(std::string path, Config config) : path_(std::move(path)), config_(std::move(config)) {}
  std::string path_;
  Config config_;
};

}  // namespace hax
