// A task drawn on the fly: an endless source of training examples that stores nothing.
//
// Example i is drawn from StreamKey{seed, Purpose::stream_example, layer = i >> 32, step = attempt,
// index = i mod 2^32}, again and again while it equals an example held out for evaluation.
#pragma once

#include <memory>
#include <string>

#include "data_gen/example_set.h"
#include "data_gen/task.h"
#include "lib/data/dataset.h"

namespace hax {

// The validation and test examples of a dataset.
ExampleSet evaluation_examples(const Dataset& dataset);

class TaskStream : public ExampleSource {
 public:
  // `held_out_fingerprint` identifies the held-out set: the dataset's fingerprint, or "" for an empty one.
  TaskStream(std::shared_ptr<const Task> task, int64_t seed, ExampleSet held_out,
             std::string held_out_fingerprint);

  const DataSpec& spec() const override { return task_->spec(); }
  int64_t size() const override { return -1; }
  void append_example(int64_t index, Batch& batch) const override;
  std::string fingerprint() const override;

  // Throws UsageError when the held-out examples leave nothing of this size to draw.
  void example(int64_t index, Example& result) const;  // index in [0, 2^56)

 private:
  std::shared_ptr<const Task> task_;
  int64_t seed_;
  ExampleSet held_out_;
  std::string held_out_fingerprint_;
};

}  // namespace hax
