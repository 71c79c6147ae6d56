#include "data_gen/stream.h"

#include <stdexcept>

#include "lib/base/error.h"
#include "lib/base/files.h"

namespace hax {
namespace {

// Ends the search where the evaluation splits hold every example that exists.
constexpr uint32_t kAttempts = 1 << 20;

}  // namespace

ExampleSet evaluation_examples(const Dataset& dataset) {
  ExampleSet result(dataset.split(Split::valid).size() + dataset.split(Split::test).size());
  Example example;
  for (Split split : {Split::valid, Split::test}) {
    const FileSource& source = dataset.split(split);
    for (int64_t i = 0; i < source.size(); ++i) {
      source.example(i, example);
      result.insert(hash_tokens(example.tokens));
    }
  }
  return result;
}

TaskStream::TaskStream(std::shared_ptr<const Task> task, int64_t seed, ExampleSet held_out,
                       std::string held_out_fingerprint)
    : task_(std::move(task)),
      seed_(seed),
      held_out_(std::move(held_out)),
      held_out_fingerprint_(std::move(held_out_fingerprint)) {}

void TaskStream::example(int64_t index, Example& result) const {
  if (index < 0 || index >= (int64_t{1} << 56)) {
    throw std::invalid_argument("TaskStream: index " + std::to_string(index) + " is not in [0, 2^56)");
  }
  for (uint32_t attempt = 0; attempt < kAttempts; ++attempt) {
    RandomStream random({static_cast<uint64_t>(seed_), Purpose::stream_example,
                         static_cast<uint32_t>(index >> 32), attempt, static_cast<uint32_t>(index)});
    task_->example(random, index, result);
    if (!held_out_.contains(hash_tokens(result.tokens))) return;
  }
  throw UsageError("data.source: stream finds nothing to draw for " +
                   task_->size_name(task_->size_at(index)) + ": " + std::to_string(kAttempts) +
                   " draws in a row are held out for evaluation (" + std::to_string(held_out_.size()) +
                   " examples); use fewer evaluation examples or larger sizes");
}

void TaskStream::append_example(int64_t index, Batch& batch) const {
  Example current;
  example(index, current);
  append(task_->spec(), current, batch);
}

std::string TaskStream::fingerprint() const {
  const std::string text = "stream\n" + task_->spec().task + "\n" + task_->parameters() + "\n" +
                           std::to_string(seed_) + "\n" + held_out_fingerprint_ + "\n";
  return checksum(as_bytes(text));
}

}  // namespace hax
