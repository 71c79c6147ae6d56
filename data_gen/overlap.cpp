#include "data_gen/overlap.h"

#include "data_gen/example_set.h"

namespace hax {

int64_t shared_examples(const FileSource& examples, const FileSource& others) {
  const auto hashes = [](const FileSource& source, const auto& use) {
    Example example;
    for (int64_t i = 0; i < source.size(); ++i) {
      source.example(i, example);
      use(hash_tokens(example.tokens));
    }
  };
  ExampleSet set(others.size());
  hashes(others, [&](const ExampleHash& hash) { set.insert(hash); });
  int64_t shared = 0;
  hashes(examples, [&](const ExampleHash& hash) { shared += set.contains(hash) ? 1 : 0; });
  return shared;
}

}  // namespace hax
