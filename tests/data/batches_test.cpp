#include "lib/data/batches.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "tests/catch.h"

using namespace hax;

namespace {

DataSpec spec_of(TargetKind kind, int64_t padded) {
  DataSpec spec;
  spec.task = "test";
  spec.vocab_size = 1000;
  spec.padded_tokens = padded;
  spec.target_kind = kind;
  spec.slice_columns = {"size"};
  return spec;
}

// Example i is the token i, three times, scored at position 1.
class Counting : public ExampleSource {
 public:
  explicit Counting(int64_t size) : spec_(spec_of(TargetKind::next_token, 4)), size_(size) {}
  const DataSpec& spec() const override { return spec_; }
  int64_t size() const override { return size_; }
  std::string fingerprint() const override { return "counting"; }
  void append_example(int64_t index, Batch& batch) const override {
    const auto token = static_cast<int32_t>(index);
    append(spec_, {{token, token, token}, {1}, {token}, {token}}, batch);
  }

 private:
  DataSpec spec_;
  int64_t size_;
};

}  // namespace

TEST_CASE("append packs examples as the model reads them") {
  const DataSpec spec = spec_of(TargetKind::next_token, 5);
  Batch batch = empty_batch(spec);
  CHECK(batch.size() == 0);
  CHECK(batch.max_seqlen() == 0);
  CHECK(batch.padded_length == 4);
  append(spec, {{1, 2, 3}, {1}, {3}, {7}}, batch);
  append(spec, {{4, 5, 6, 7, 8}, {1, 3}, {6, 8}, {9}},
         batch);  // fills the row: the last token is an answer alone
  CHECK(batch.size() == 2);
  CHECK(batch.max_seqlen() == 4);
  CHECK(batch.tokens == std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7});
  CHECK(batch.cu_seqlens == std::vector<int32_t>{0, 3, 7});
  CHECK(batch.scored == std::vector<int32_t>{1, 4, 6});
  CHECK(batch.targets == std::vector<int32_t>{3, 6, 8});
  CHECK(batch.cu_scored == std::vector<int32_t>{0, 1, 3});
  CHECK(batch.slices == std::vector<int32_t>{7, 9});

  const DataSpec labels = spec_of(TargetKind::label, 5);
  Batch whole = empty_batch(labels);
  append(labels, {{4, 5, 6, 7, 8}, {4}, {9}, {1}}, whole);
  CHECK(whole.tokens.size() == 5);
  CHECK(whole.padded_length == 5);
}

TEST_CASE("append refuses what does not fit its spec") {
  const DataSpec spec = spec_of(TargetKind::next_token, 3);
  Batch batch = empty_batch(spec);
  CHECK_THROWS_AS(append(spec, {{1, 2, 3, 4}, {}, {}, {0}}, batch), std::invalid_argument);
  CHECK_THROWS_AS(append(spec, {{1, 2, 3}, {2}, {5}, {0}}, batch), std::invalid_argument);
  CHECK_THROWS_AS(append(spec, {{1, 2, 3}, {1}, {}, {0}}, batch), std::invalid_argument);
  CHECK_THROWS_AS(append(spec, {{1, 2, 3}, {1}, {3}, {}}, batch), std::invalid_argument);
  CHECK(batch.size() == 0);
  CHECK(batch.tokens.empty());
  CHECK(batch.scored.empty());
}

TEST_CASE("a keyed permutation is a bijection at every size, and another one for every key") {
  for (int64_t size : {1, 2, 3, 5, 16, 17, 100, 1000, 4097}) {
    std::vector<bool> seen(static_cast<size_t>(size));
    const KeyedPermutation order(9, 3, size);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t image = order(i);
      REQUIRE(image >= 0);
      REQUIRE(image < size);
      REQUIRE(!seen[static_cast<size_t>(image)]);
      seen[static_cast<size_t>(image)] = true;
    }
  }
  const auto images = [](uint64_t seed, uint32_t epoch) {
    std::vector<int64_t> result;
    const KeyedPermutation order(seed, epoch, 1000);
    for (int64_t i = 0; i < 1000; ++i) result.push_back(order(i));
    return result;
  };
  CHECK(images(1, 0) == images(1, 0));
  CHECK(images(1, 0) != images(1, 1));
  CHECK(images(1, 0) != images(2, 0));
  CHECK(images(1, 0) != images(uint64_t{1} << 32 | 1, 0));
  CHECK_THROWS_AS(KeyedPermutation(1, 0, 0), std::invalid_argument);
  CHECK_THROWS_AS(KeyedPermutation(1, 0, 5)(5), std::invalid_argument);
}

TEST_CASE("a keyed permutation of five is each of the 120 orders equally often") {
  std::map<std::vector<int64_t>, int> counts;
  const int n = 60000;
  for (uint32_t epoch = 0; epoch < n; ++epoch) {
    const KeyedPermutation order(5, epoch, 5);
    ++counts[{order(0), order(1), order(2), order(3), order(4)}];
  }
  REQUIRE(counts.size() == 120);
  double chi2 = 0.0;
  for (const auto& [order, count] : counts) chi2 += std::pow(count - n / 120.0, 2) / (n / 120.0);
  CHECK(chi2 < 119 + 5 * std::sqrt(238.0));  // 119 degrees of freedom, five standard deviations
}

TEST_CASE("batches of a finite source read every example once an epoch and cross epochs whole") {
  const Counting source(10);
  const BatchSequence batches(source, 42, 4);
  std::vector<int64_t> read;
  for (int64_t step = 0; step < 10; ++step) {
    const std::vector<int64_t> indices = batches.indices(step);
    REQUIRE(indices.size() == 4);
    read.insert(read.end(), indices.begin(), indices.end());
  }
  std::set<std::vector<int64_t>> orders;
  for (int epoch = 0; epoch < 4; ++epoch) {
    std::vector<int64_t> indices(read.begin() + 10 * epoch, read.begin() + 10 * (epoch + 1));
    orders.insert(indices);
    std::sort(indices.begin(), indices.end());
    for (int64_t i = 0; i < 10; ++i) REQUIRE(indices[static_cast<size_t>(i)] == i);
  }
  CHECK(orders.size() == 4);
  // A step is drawn alone as in a row.
  CHECK(BatchSequence(source, 42, 4).indices(7) ==
        std::vector<int64_t>(read.begin() + 28, read.begin() + 32));
  const Batch batch = batches.batch(7);
  CHECK(batch.size() == 4);
  for (int b = 0; b < 4; ++b)
    CHECK(batch.slices[static_cast<size_t>(b)] == read[static_cast<size_t>(28 + b)]);
  CHECK_THROWS_AS(BatchSequence(Counting(0), 1, 4), std::invalid_argument);
  CHECK_THROWS_AS(BatchSequence(source, 1, 0), std::invalid_argument);
}

TEST_CASE("batches of an endless source and of evaluation are consecutive") {
  const Counting stream(-1);
  CHECK(BatchSequence(stream, 1, 3).indices(5) == std::vector<int64_t>{15, 16, 17});
  const Counting file(5);
  CHECK(consecutive_batch(file, 3, 5).slices == std::vector<int32_t>{3, 4});
  CHECK_THROWS_AS(consecutive_batch(file, 3, 6), std::invalid_argument);
}
