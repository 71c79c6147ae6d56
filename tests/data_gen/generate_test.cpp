#include "data_gen/generate.h"

#include <cmath>
#include <filesystem>
#include <set>

#include "data_gen/bench.h"
#include "data_gen/joint_recall.h"
#include "data_gen/registry.h"
#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/data/dataset.h"
#include "tests/catch.h"
#include "tests/data_gen/scratch.h"

using namespace hax;
using hax::test::mentions;
using hax::test::message_of;
using hax::test::Scratch;

namespace {

TaskConfig small_tables(int64_t low, int64_t high) {
  TaskConfig task;
  task.joint_recall.n_context_min = task.joint_recall.n_key_min = low;
  task.joint_recall.n_context_max = task.joint_recall.n_key_max = high;
  return task;
}

TaskConfig mqar() {
  TaskConfig task;
  task.name = TaskKind::mqar;
  task.mqar.vocab_size = 300;
  return task;
}

DataConfig counts(int64_t train, int64_t valid, int64_t test, int64_t seed = 1) {
  DataConfig data;
  data.train_examples = train;
  data.valid_examples = valid;
  data.test_examples = test;
  data.seed = seed;
  return data;
}

GenerateOptions options_for(const std::string& out, int threads = 2) {
  GenerateOptions options;
  options.out = out;
  options.threads = threads;
  options.program_version = "test";
  return options;
}

std::vector<std::string> bytes_of(const std::string& folder) {
  std::vector<std::string> result = {read_file(manifest_path(folder))};
  for (Split split : kSplits) result.push_back(read_file(split_path(folder, split)));
  return result;
}

std::set<std::string> names_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.insert(entry.path().filename().string());
  return names;
}

const std::set<std::string> kWhole = {"manifest.json", "test.safetensors", "train.safetensors",
                                      "valid.safetensors"};

}  // namespace

TEST_CASE("a dataset is the same bytes for any number of threads") {
  for (const TaskConfig& task : {small_tables(1, 3), mqar()}) {
    const Scratch scratch;
    // More than a block of MQAR; small tables with duplicates: 14 of the 16 examples of 1 x 1.
    const DataConfig data = counts(task.name == TaskKind::mqar ? 10000 : 80, 27, 18);
    generate_dataset(task, data, options_for(scratch / "one", 1));
    const std::vector<std::string> expected = bytes_of(scratch / "one");
    for (int threads : {2, 3}) {
      const std::string out = scratch / std::to_string(threads);
      generate_dataset(task, data, options_for(out, threads));
      const std::vector<std::string> found = bytes_of(out);
      for (size_t i = 0; i < expected.size(); ++i) CHECK((found[i] == expected[i]));
    }
    CHECK(names_in(scratch / "one") == kWhole);
  }
}

TEST_CASE("every example of a dataset is the task's, can be drawn alone, and is solved by the oracle") {
  for (const TaskConfig& config : {small_tables(5, 7), mqar()}) {
    const Scratch scratch;
    const GenerateReport report = generate_dataset(config, counts(40, 20, 30, 5), options_for(scratch / "d"));
    CHECK(report.examples == 90);
    CHECK(report.redrawn == 0);
    const Dataset dataset = Dataset::open(scratch / "d", 1);
    CHECK(dataset.manifest().fingerprint() == report.fingerprint);
    const auto task = make_task(dataset.manifest(), scratch / "d");
    Example stored;
    Example alone;
    for (Split split : kSplits) {
      for (int64_t i = 0; i < dataset.split(split).size(); ++i) {
        dataset.split(split).example(i, stored);
        REQUIRE(task->fault(stored) == "");
        REQUIRE(task->oracle(stored) == stored.targets);
        draw_example(*task, 5, split, i, 0, alone);
        REQUIRE(alone.tokens == stored.tokens);
        REQUIRE(alone.scored == stored.scored);
        REQUIRE(alone.targets == stored.targets);
        REQUIRE(alone.slices == stored.slices);
      }
    }
  }
}

TEST_CASE("seeds and splits give different examples") {
  const auto task = make_task(small_tables(5, 5));
  std::set<std::vector<int32_t>> seen;
  Example example;
  for (int64_t seed : {1, 2, 3}) {
    for (Split split : kSplits) {
      for (uint32_t attempt : {0u, 1u}) {
        draw_example(*task, seed, split, 0, attempt, example);
        CHECK(seen.insert(example.tokens).second);
      }
    }
  }
}

TEST_CASE("no example appears twice, even where the splits take all that exist") {
  const Scratch scratch;
  TaskConfig config = small_tables(1, 2);
  config.joint_recall.n_value = 2;
  // 1x1 2, 1x2 4 * (2!)^2 = 16, 2x1 4 * (2!)^2 = 16, 2x2 16 * (2! * 2!^2)^2 = 1024 examples exist.
  config.joint_recall.n_context_min = 2;
  const DataConfig data = counts(16, 8, 8);  // 2x1 and 2x2 in turn: all sixteen 2x1
  const GenerateReport report = generate_dataset(config, data, options_for(scratch / "d"));
  CHECK(report.redrawn > 0);
  const Dataset dataset = Dataset::open(scratch / "d", 1);
  const auto task = make_task(config);
  std::set<std::vector<int32_t>> seen;
  Example example;
  // The order in which examples claim their place: valid, test, train. The earlier keeps its draw.
  for (Split split : {Split::valid, Split::test, Split::train}) {
    for (int64_t i = 0; i < dataset.split(split).size(); ++i) {
      dataset.split(split).example(i, example);
      REQUIRE(task->fault(example) == "");
      Example redrawn;
      uint32_t attempt = 0;
      do {
        draw_example(*task, data.seed, split, i, attempt++, redrawn);
      } while (seen.count(redrawn.tokens) != 0);
      REQUIRE(redrawn.tokens == example.tokens);
      REQUIRE(seen.insert(example.tokens).second);
    }
  }
  CHECK(seen.size() == 32);
}

TEST_CASE("evaluation splits do not depend on the size of the training split") {
  const Scratch scratch;
  generate_dataset(small_tables(1, 2), counts(10, 12, 12), options_for(scratch / "a"));
  generate_dataset(small_tables(1, 2), counts(20, 12, 12), options_for(scratch / "b"));
  for (Split split : {Split::valid, Split::test}) {
    CHECK((read_file(split_path(scratch / "a", split)) == read_file(split_path(scratch / "b", split))));
  }
}

TEST_CASE("asking for more examples than exist is refused with the numbers, before anything is written") {
  const Scratch scratch;
  // Sizes in turn: 9 + 4 + 4 = 17 examples of 1 x 1, and 16 exist.
  const DataConfig data = counts(36, 16, 16);
  const std::string message =
      message_of<UsageError>([&] { generate_dataset(small_tables(1, 2), data, options_for(scratch / "d")); });
  CHECK(mentions(message, "17"));
  CHECK(mentions(message, "16"));
  CHECK(mentions(message, "n_context 1, n_key 1"));
  CHECK(!std::filesystem::exists(scratch / "d"));
  CHECK_NOTHROW(check_counts(*make_task(small_tables(1, 2)), counts(32, 16, 16)));
  CHECK_THROWS_AS(check_counts(*make_task(mqar()), counts(-1, 0, 0)), UsageError);
  CHECK_THROWS_AS(check_counts(*make_task(mqar()), counts(1, 0, 0, -1)), UsageError);
  CHECK_THROWS_AS(check_counts(*make_task(mqar()), counts(int64_t{1} << 32, 0, 0)), UsageError);
}

TEST_CASE("only new, empty and interrupted folders are taken") {
  const Scratch scratch;
  const std::string out = scratch / "d";
  const auto generate = [&] { generate_dataset(mqar(), counts(10, 5, 5), options_for(out)); };
  SECTION("an empty one") {
    make_directories(out);
    generate();
    CHECK(names_in(out) == kWhole);
  }
  SECTION("a dataset is kept") {
    generate();
    const std::vector<std::string> before = bytes_of(out);
    CHECK(mentions(message_of<UsageError>(generate), "already holds a dataset"));
    CHECK((bytes_of(out) == before));
  }
  SECTION("foreign files are kept, whatever their names") {
    make_directories(out);
    write_file(out + "/train.safetensors", "mine");
    CHECK(mentions(message_of<UsageError>(generate), "train.safetensors"));
    CHECK(read_file(out + "/train.safetensors") == "mine");
  }
  SECTION("a file") {
    write_file(out, "mine");
    CHECK(mentions(message_of<UsageError>(generate), "is a file"));
  }
  SECTION("an interrupted generation is begun again") {
    make_directories(out);
    write_file(out + "/generation_in_progress", "");
    write_file(out + "/valid.safetensors", "half");
    generate();
    CHECK(names_in(out) == kWhole);
    CHECK(Dataset::open(out, 1).split(Split::valid).size() == 5);
  }
  SECTION("an interrupted generation among foreign files is kept") {
    make_directories(out);
    write_file(out + "/generation_in_progress", "");
    write_file(out + "/notes.txt", "mine");
    CHECK(mentions(message_of<UsageError>(generate), "notes.txt"));
    CHECK(names_in(out).size() == 2);
  }
}

TEST_CASE("a stopped generation leaves nothing") {
  const Scratch scratch;
  GenerateOptions options = options_for(scratch / "d");
  int64_t done = 0;
  int asked = 0;
  options.progress = [&](int64_t examples, int64_t total) {
    CHECK(examples > done);
    CHECK(total == 20010);
    done = examples;
  };
  options.should_stop = [&] { return ++asked > 3; };  // after valid, test and one block of train
  CHECK(generate_dataset(mqar(), counts(20000, 5, 5), options).stopped);
  CHECK(done == 10 + 8192);
  CHECK(!std::filesystem::exists(scratch / "d"));
  make_directories(scratch / "d");
  asked = 0;
  done = 0;
  CHECK(generate_dataset(mqar(), counts(20000, 5, 5), options).stopped);
  CHECK(names_in(scratch / "d").empty());
}

TEST_CASE("a manifest that no task fits is refused") {
  const Scratch scratch;
  generate_dataset(mqar(), counts(3, 0, 0), options_for(scratch / "d"));
  const Manifest good = read_manifest(scratch / "d");
  Manifest bad = good;
  bad.spec.task = "sorting";
  CHECK(mentions(message_of<DataError>([&] { make_task(bad, "folder"); }), "folder/manifest.json"));
  bad = good;
  bad.parameters = "{}";
  CHECK_THROWS_AS(make_task(bad, "folder"), DataError);
  bad = good;
  bad.spec.padded_tokens += 2;
  CHECK_THROWS_AS(make_task(bad, "folder"), DataError);
}

TEST_CASE("the benchmark prints its rows and cleans up") {
  const Scratch scratch;
  std::ostringstream out;
  bench_generation(mqar(), counts(100, 10, 10), scratch / "d", 1, out);
  CHECK(mentions(out.str(), "examples/s"));
  CHECK(mentions(out.str(), "120.00"));
  CHECK(!std::filesystem::exists(scratch / "d"));
}
