#include "data_gen/overlap.h"

#include <mutex>

#include "data_gen/example_set.h"
#include "lib/base/parallel.h"

namespace hax {
namespace {

constexpr int64_t kGrain = 256;  // examples that are worth a thread

// `other` fills an Example by its index in [0, count). The split is kept in memory, the others pass by.
template <class Other>
int64_t shared(const FileSource& examples, int64_t count, const Other& other, const OverlapOptions& options) {
  ExampleSet wanted(examples.size()), found;
  Example example;
  for (int64_t i = 0; i < examples.size(); ++i) {
    examples.example(i, example);
    wanted.insert(hash_tokens(example.tokens));
  }
  std::mutex mutex;
  parallel_for(count, kGrain, options.threads, [&](int64_t begin, int64_t end) {
    Example one;
    for (int64_t i = begin; i < end && !options.stopped(); ++i) {
      other(i, one);
      const ExampleHash hash = hash_tokens(one.tokens);
      if (!wanted.contains(hash)) continue;
      const std::lock_guard lock(mutex);
      found.insert(hash);
    }
  });
  int64_t shared = 0;
  for (int64_t i = 0; i < examples.size(); ++i) {
    examples.example(i, example);
    shared += found.contains(hash_tokens(example.tokens)) ? 1 : 0;
  }
  return shared;
}

}  // namespace

int64_t shared_examples(const FileSource& examples, const FileSource& others, const OverlapOptions& options) {
  return shared(
      examples, others.size(), [&](int64_t i, Example& one) { others.example(i, one); }, options);
}

int64_t shared_examples(const FileSource& examples, const TaskStream& stream, int64_t drawn,
                        const OverlapOptions& options) {
  return shared(
      examples, drawn, [&](int64_t i, Example& one) { stream.example(i, one); }, options);
}

}  // namespace hax
