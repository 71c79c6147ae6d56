#include "data_gen/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "data_gen/output_folder.h"
#include "data_gen/registry.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/data/split_columns.h"

namespace hax {
namespace {

// Examples drawn between two looks at should_stop, fewer where they are long: it bounds the memory that
// examples take before they are encoded.
constexpr int64_t kBlock = 8192;
constexpr int64_t kBlockTokens = int64_t{1} << 25;

int64_t block_examples(const DataSpec& spec) {
  return std::clamp<int64_t>(kBlockTokens / spec.padded_tokens, 1, kBlock);
}

class Stopwatch {
 public:
  explicit Stopwatch(double& total) : total_(total), start_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() { total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  double& total_;
  std::chrono::steady_clock::time_point start_;
};

int64_t examples_of(const DataConfig& data, Split split) {
  switch (split) {
    case Split::train:
      return data.train_examples;
    case Split::valid:
      return data.valid_examples;
    case Split::test:
      return data.test_examples;
  }
  return 0;
}

class Generator {
 public:
  Generator(const Task& task, const DataConfig& data, const GenerateOptions& options, int threads)
      : task_(task), data_(data), options_(options), threads_(threads) {
    for (Split split : kSplits) total_ += examples_of(data, split);
    seen_ = ExampleSet(total_);
  }

  // False when should_stop said so.
  bool draw(Split split, SplitColumns& columns) {
    const int64_t n = examples_of(data_, split);
    const int64_t block = block_examples(task_.spec());
    for (int64_t begin = 0; begin < n; begin += block) {
      if (options_.should_stop && options_.should_stop()) return false;
      const int64_t count = std::min(block, n - begin);
      draw_block(split, begin, count);
      Stopwatch watch(report_.encode_seconds);
      columns.append(std::span(block_).first(static_cast<size_t>(count)), threads_);
      report_.examples += count;
      if (options_.progress) options_.progress(report_.examples, total_);
    }
    return true;
  }

  GenerateReport& report() { return report_; }

 private:
  void draw_block(Split split, int64_t begin, int64_t count) {
    block_.resize(static_cast<size_t>(std::max<int64_t>(count, static_cast<int64_t>(block_.size()))));
    hashes_.resize(block_.size());
    {
      Stopwatch watch(report_.draw_seconds);
      // Long examples one by one, so that a few of them keep all threads busy.
      parallel_for(count, std::clamp<int64_t>(count / 32, 1, 256), threads_,
                   [&](int64_t first, int64_t last) {
                     for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
                       draw_example(task_, data_.seed, split, begin + static_cast<int64_t>(i), 0, block_[i]);
                       hashes_[i] = hash_tokens(block_[i].tokens);
                     }
                   });
    }
    // In order of index on one thread: the earlier example keeps its draw.
    Stopwatch watch(report_.deduplicate_seconds);
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      for (uint32_t attempt = 1; !seen_.insert(hashes_[i]); ++attempt) {
        draw_example(task_, data_.seed, split, begin + static_cast<int64_t>(i), attempt, block_[i]);
        hashes_[i] = hash_tokens(block_[i].tokens);
        ++report_.redrawn;
      }
    }
  }

  const Task& task_;
  const DataConfig& data_;
  const GenerateOptions& options_;
  const int threads_;
  int64_t total_ = 0;
  ExampleSet seen_;
  std::vector<Example> block_;
  std::vector<ExampleHash> hashes_;
  GenerateReport report_;
};

}  // namespace

void draw_example(const Task& task, int64_t seed, Split split, int64_t index, uint32_t attempt,
                  Example& result) {
  RandomStream random({static_cast<uint64_t>(seed), Purpose::example, static_cast<uint32_t>(split), attempt,
                       static_cast<uint32_t>(index)});
  task.example(random, index, result);
}

void check_counts(const Task& task, const DataConfig& data) {
  if (data.seed < 0) throw UsageError("data.seed: must not be negative, found " + std::to_string(data.seed));
  const int64_t sizes = task.sizes();
  for (Split split : kSplits) {
    const int64_t n = examples_of(data, split);
    if (n < 0 || n >= (int64_t{1} << 32)) {
      throw UsageError("data." + std::string(split_name(split)) + "_examples: must be in [0, 2^32), found " +
                       std::to_string(n));
    }
  }
  for (int64_t size = 0; size < sizes; ++size) {
    int64_t wanted = 0;
    for (Split split : kSplits) {
      wanted += task.count_at(size, examples_of(data, split));
    }
    const double exist = std::round(std::exp2(std::min(task.log2_distinct(size), 62.0)));
    if (static_cast<double>(wanted) > exist) {
      throw UsageError("data.train_examples, valid_examples and test_examples ask together for " +
                       std::to_string(wanted) + " distinct " + task.spec().task + " examples of " +
                       task.size_name(size) + ", but only " + std::to_string(static_cast<int64_t>(exist)) +
                       " exist; ask for fewer, or for larger sizes");
    }
  }
}

GenerateReport generate_dataset(const TaskConfig& task_config, const DataConfig& data,
                                const GenerateOptions& options) {
  const std::unique_ptr<Task> task = make_task(task_config);
  check_counts(*task, data);
  OutputFolder folder(options.out);

  Manifest manifest;
  manifest.spec = task->spec();
  manifest.parameters = task->parameters();
  manifest.origin = "generated";
  manifest.program_version = options.program_version;
  manifest.seed = data.seed;

  Generator generator(*task, data, options, options.threads > 0 ? options.threads : hardware_threads());
  GenerateReport& report = generator.report();
  // Evaluation first: a longer training split leaves validation and test as they are.
  for (Split split : {Split::valid, Split::test, Split::train}) {
    SplitColumns columns(task->spec(), examples_of(data, split));
    if (!generator.draw(split, columns)) {
      report.stopped = true;
      return report;
    }
    Stopwatch watch(report.write_seconds);
    manifest.split(split) = folder.write(columns, split);
    report.tokens += manifest.split(split).tokens;
    report.bytes += manifest.split(split).bytes;
  }
  if (options.should_stop && options.should_stop()) {
    report.stopped = true;
    return report;
  }
  folder.publish(manifest);
  report.fingerprint = manifest.fingerprint();
  return report;
}

}  // namespace hax
